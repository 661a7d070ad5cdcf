from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.errors import InvalidRequest, RequestCancelled, RequestExpired, RequestFailed
from inferq.messages import (
    Crossing,
    ErrorInfo,
    FinishReason,
    Handoff,
    Output,
    Timings,
    ended_error,
    error_output,
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
seconds = st.floats(0, 1e9)
numbers = st.integers(0, 2**31 - 1)
outputs = st.builds(
    Output,
    request_id=words,
    attempt=numbers,
    index=numbers,
    token_ids=st.lists(numbers, max_size=5).map(tuple),
    text=words,
    finished=st.booleans(),
    finish_reason=st.none() | st.sampled_from([reason.value for reason in FinishReason]),
    error=st.none() | st.builds(ErrorInfo, words, words),
    timings=st.none() | st.builds(Timings, seconds, seconds, seconds),
    node=words,
    crossing=st.none() | st.builds(Crossing, words, words, numbers, seconds),
    restarted=st.just(False),
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary()
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
GOOD = {"request_id": "r", "protocols": ["unix", "tcp"], "prompt_tokens": 5}


@given(outputs)
def test_an_output_travels_by_json_and_by_msgpack(output: Output) -> None:
    assert Output.from_wire(json.loads(json.dumps(output.to_wire()))) == output
    assert Output.from_wire(msgpack.unpackb(msgpack.packb(output.to_wire()))) == output


@given(anything)
def test_hostile_data_is_no_output(raw: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Output.from_wire(raw)


@given(outputs, st.integers(0, 8), anything)
def test_an_output_with_a_hostile_field_is_read_or_refused(
    output: Output, position: int, value: Any
) -> None:
    raw = list(output.to_wire())
    raw[position] = value
    try:
        read = Output.from_wire(raw)
    except ValueError:
        return
    assert Output.from_wire(json.loads(json.dumps(read.to_wire()))) == read


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": True},
        {"index": -1},
        {"token_ids": [1, 2.0]},
        {"token_ids": "12"},
        {"finished": 1},
        {"finish_reason": "tired"},
        {"finish_reason": []},
        {"error": ["code"]},
        {"error": "no"},
        {"timings": [0, 0, float("nan")]},
        {"timings": [0, 0, 10**400]},
        {"timings": [0, 0]},
    ],
)
def test_a_wrong_field_of_an_output_is_refused(change: dict[str, Any]) -> None:
    fields = {**Output("r")._asdict(), **change}
    with pytest.raises(ValueError, match=r"."):
        Output.from_wire(tuple(fields.values()))


def test_an_output_that_ends_a_request_says_how() -> None:
    assert ended_error(Output("r", finished=True, finish_reason="stop")) is None
    kinds = {
        FinishReason.CANCELLED: RequestCancelled,
        FinishReason.EXPIRED: RequestExpired,
        FinishReason.ERROR: RequestFailed,
    }
    for reason, kind in kinds.items():
        error = ended_error(error_output("r", reason, "why", "because", attempt=2))
        assert type(error) is kind
        assert "because" in str(error)
    assert isinstance(error, RequestFailed)
    assert error.error_code == "why"


def test_a_handoff_travels() -> None:
    handoff = Handoff.parse({**GOOD, "token_ids": [7], "text": "x", "kv": {"key": "r/1"}})
    raw = msgpack.unpackb(msgpack.packb(handoff.model_dump()))
    assert Handoff.parse(raw) == handoff


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("request_id", {"request_id": ""}),
        ("protocols", {"protocols": [""]}),
        ("protocols", {"protocols": None}),
        ("prompt_tokens", {"prompt_tokens": 0}),
        ("prompt_tokens", {"prompt_tokens": True}),
        ("token_ids.0", {"token_ids": [-1]}),
        ("family", {"family": "wormhole"}),
        ("kv", {"kv": []}),
        ("text", {"text": b"x"}),
        ("extra", {"extra": 1}),
    ],
)
def test_a_wrong_field_of_a_handoff_is_named(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Handoff.parse({**GOOD, **change})
    assert field in str(caught.value)


@given(anything)
def test_hostile_data_is_no_handoff(raw: Any) -> None:
    with pytest.raises(InvalidRequest):
        Handoff.parse(raw)
