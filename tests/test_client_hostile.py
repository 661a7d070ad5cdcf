"""Messages that no honest producer would send: the worker lives, and keeps nothing of them."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Producer

from inferq import Client
from tests.support import LONG_S, fast, wait_until

GOOD_BODY = json.dumps([[], {"prompt": "p", "max_tokens": 2}, {}])
HEADERS = {"task": "inferq.prefill", "id": "hostile", "lang": "py"}
JSON = {"content_type": "application/json", "content_encoding": "utf-8"}
MSGPACK = {"content_type": "application/x-msgpack", "content_encoding": "binary"}
PICKLE = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}

HOSTILE: dict[str, dict[str, Any]] = {
    "bad UTF-8": {"body": b'[[], {"prompt": "\xff\xfe"}, {}]', "headers": HEADERS, **JSON},
    "truncated JSON": {"body": GOOD_BODY[:-9], "headers": HEADERS, **JSON},
    "truncated msgpack": {"body": b"\x93\x90\x82\xa6pro", "headers": HEADERS, **MSGPACK},
    "pickle": {"body": pickle.dumps([(), {"prompt": "p"}, {}]), "headers": HEADERS, **PICKLE},
    "no headers": {"body": GOOD_BODY, "headers": {}, **JSON},
    "no id": {"body": GOOD_BODY, "headers": {"task": "inferq.prefill"}, **JSON},
    "unknown task": {"body": GOOD_BODY, "headers": {**HEADERS, "task": "os.system"}, **JSON},
    "no list": {"body": '{"prompt": "p"}', "headers": HEADERS, **JSON},
    "wrong arguments": {"body": "[1, 2, 3]", "headers": HEADERS, **JSON},
    "positional arguments": {"body": '[["p"], {}, {}]', "headers": HEADERS, **JSON},
    "unknown content type": {
        "body": GOOD_BODY,
        "headers": HEADERS,
        "content_type": "application/x-what",
        "content_encoding": "utf-8",
    },
    "unknown encoding": {
        "body": GOOD_BODY.encode(),
        "headers": HEADERS,
        "content_type": "application/json",
        "content_encoding": "no-such",
    },
    "a size that lies": {
        "body": GOOD_BODY,
        "headers": {**HEADERS, "inferq_size": [10**9, -1]},
        **JSON,
    },
    "an attempt that is text": {
        "body": GOOD_BODY,
        "headers": {**HEADERS, "inferq_attempt": "many", "inferq_submitted_at": []},
        **JSON,
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_worker_outlives_a_hostile_message(
    client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = dict(HOSTILE[name])
    with caplog.at_level(logging.CRITICAL + 1), client.app.connection_for_write() as connection:
        producer = Producer(connection.channel())
        for _ in range(3):
            producer.publish(message["body"], **without(message, "body"), **route(client))
        answer = client.generate(prompt="after", max_tokens=3, timeout=LONG_S)
        assert len(answer.token_ids) == 3
        wait_until(lambda: client.counts().waiting == client.counts().running == 0)


def without(message: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != key}


def route(client: Client) -> dict[str, str]:
    return {"exchange": "", "routing_key": f"{client.settings.scheduler_topic}.prefill"}


def test_a_request_that_asks_to_run_later_is_refused_and_holds_no_room(client: Client) -> None:
    sent = client.app.send_task("inferq.prefill", kwargs={"prompt": "p"}, countdown=3600)
    with pytest.raises(Exception, match="eta"):
        sent.get(timeout=LONG_S)
    wait_until(lambda: client.counts().running == 0)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        "id",
        "timelimit",
        "eta",
        "expires",
        "retries",
        "root_id",
        "group",
        "shadow",
        "callbacks",
        "argsrepr",
        "origin",
        "ignore_result",
        "stamped_headers",
        "stamps",
        "replaced_task_nesting",
        "compression",
        "inferq_size",
        "inferq_attempt",
        "inferq_submitted_at",
    ]
)


@given(headers=st.dictionaries(NAMES, JUNK, min_size=1), body=JUNK)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_worker_outlives_any_header(
    shared: Client, headers: dict[str, Any], body: object
) -> None:
    with shared.app.connection_for_write() as connection:
        raw = json.dumps(body) if headers.get("shadow") else GOOD_BODY
        message = {**HEADERS, **headers}
        channel = connection.channel()
        channel.basic_publish(
            channel.prepare_message(raw.encode(), headers=message, **JSON), **route(shared)
        )
    assert shared.generate(prompt="after", max_tokens=1, timeout=LONG_S)


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    logging.disable(logging.CRITICAL)
    with Client(fast()) as client:
        yield client
        wait_until(lambda: client.counts().waiting == client.counts().running == 0)
    logging.disable(logging.NOTSET)
