"""Messages that anybody may have written into a queue of Redis."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.cluster.topic import Taken
from inferq.messages.headers import ATTEMPT_HEADER, DEADLINE_HEADER, SUBMITTED_HEADER
from inferq.tasks import PREFILL
from inferq.worker.claimed import Malformed, read_claimed

NOW_MS = 1_000_000_000


def taken(raw: bytes, *, request_id: str = "", attempt: int = 0) -> Taken:
    return Taken(
        claim=7,
        attempt=attempt,
        again=attempt > 0,
        source="",
        request_id=request_id,
        prompt_tokens=0,
        max_tokens=0,
        submitted_ms=NOW_MS - 2000,
        deadline_ms=NOW_MS + 30_000,
        queue="t.prefill",
        raw=raw,
    )


def message(**changes: Any) -> dict[str, Any]:
    body = msgpack.packb([[], {"prompt": "hi"}, {}])
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "binary",
        "content-type": "application/x-msgpack",
        "headers": {"task": PREFILL, "id": "r1", "lang": "py"},
        "properties": {
            "correlation_id": "r1",
            "reply_to": "origin",
            "delivery_info": {"exchange": "", "routing_key": "t.prefill"},
            "delivery_tag": "theirs",
            "body_encoding": "base64",
        },
        **changes,
    }


def read(raw: dict[str, Any] | bytes, **given_: Any) -> dict[str, Any]:
    data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return read_claimed(taken(data, **given_), NOW_MS, {PREFILL})


def test_a_good_message_gets_a_tag_of_ours_and_its_body_as_bytes() -> None:
    got = read(message())
    assert msgpack.unpackb(got["body"])[1] == {"prompt": "hi"}
    assert got["properties"]["delivery_tag"] == "claim-7"
    assert got["properties"]["reply_to"] == "origin"
    assert got["properties"]["delivery_info"]["routing_key"] == "t.prefill"


def test_times_of_another_clock_become_times_of_this_one() -> None:
    before = time.time()
    headers = read(message(), attempt=2)["headers"]
    assert headers[ATTEMPT_HEADER] == 2
    assert 29.9 < headers[DEADLINE_HEADER] - before < 31
    assert 1.9 < before - headers[SUBMITTED_HEADER] < 2.1


def test_headers_of_ours_cannot_be_forged() -> None:
    forged = {"task": PREFILL, "id": "r1", ATTEMPT_HEADER: 99, DEADLINE_HEADER: 1e18}
    headers = read(message(headers=forged))["headers"]
    assert headers[ATTEMPT_HEADER] == 0
    assert headers[DEADLINE_HEADER] < time.time() + 60


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"", "JSON"),
        (b"\x80\x04pickle", "JSON"),
        (b"[1]", "JSON object"),
        (b"[" * 100_000, "JSON"),
        (message(headers=None), "headers"),
        (message(headers={"task": PREFILL}), "headers.id"),
        (message(headers={"task": PREFILL, "id": 5}), "headers.id"),
        (message(headers={"task": PREFILL, "id": "a b"}), "headers.id"),
        (message(headers={"task": "os.system", "id": "r1"}), "headers.task"),
        (message(headers={"task": ["x"], "id": "r1"}), "headers.task"),
        (message(properties=[]), "properties"),
        (message(body=5), "body"),
        (message(body="***"), "body"),
        (message(properties={"body_encoding": "zip"}), "body_encoding"),
        (message(properties={"reply_to": {}}), "reply_to"),
        (message(**{"content-type": "application/x-python-serialize"}), "content-type"),
        (message(**{"content-type": {}}), "content-type"),
        (message(**{"content-encoding": 1}), "content-encoding"),
    ],
)
def test_what_cannot_be_run_is_named(raw: dict[str, Any] | bytes, field: str) -> None:
    with pytest.raises(Malformed, match=field):
        read(raw)


def test_an_envelope_cannot_speak_for_another_request() -> None:
    with pytest.raises(Malformed, match="envelope"):
        read(message(), request_id="somebody-else")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.binary()
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(list(message())), JSON).map(
        lambda changes: json.dumps(message(**changes)).encode()
    )
)
def test_nothing_but_malformed_comes_out_of_garbage(raw: bytes) -> None:
    try:
        got = read(raw)
    except Malformed:
        return
    assert isinstance(got["body"], bytes)
    assert isinstance(got["headers"]["id"], str)
