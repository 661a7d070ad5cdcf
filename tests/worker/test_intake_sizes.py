from __future__ import annotations

from typing import Any

import pytest
from kombu.serialization import dumps

from inferq.messages.headers import SIZE_HEADER
from inferq.transport.gate import RawMessage
from tests.worker.fake_engine import TAKE, FakeEngine, look, make


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def full(body: Any, serializer: str = "json", **headers: Any) -> RawMessage:
    kind, encoding, data = dumps(body, serializer=serializer)
    return {
        "body": data,
        "content-type": kind,
        "content-encoding": encoding,
        "headers": headers,
        "properties": {"delivery_tag": "t"},
    }


GOOD = [[], {"prompt": "hello", "max_tokens": 5}, {}]
HOSTILE = [
    full([[], {"prompt": ""}, {}]),
    full([[], {"prompt": "wrong"}, {}]),
    full([[], {"prompt": "x", "max_tokens": 10**30}, {}]),
    full([[], {}, {}]),
    full([[], 5, {}]),
    full([]),
    full({}),
    full(None),
    full("text"),
    {**full(GOOD), "body": b"{"},
    {**full(GOOD), "body": b"\xff"},
    {**full(GOOD), "body": 5},
    {**full(GOOD), "content-type": "application/x-python-serialize"},
    {**full(GOOD), "content-type": "application/x-nothing"},
    {**full(GOOD), "content-type": None},
    {**full(GOOD), "body": b"[]", "content-encoding": "no-such"},
    {**full(GOOD, serializer="msgpack"), "body": b"\xc1"},
    {"headers": {}, "properties": {"delivery_tag": "t"}},
]


@pytest.mark.parametrize("message", HOSTILE)
def test_what_cannot_be_read_is_taken_for_the_task_to_refuse(
    engine: FakeEngine, message: RawMessage
) -> None:
    engine.free_blocks = 0
    intake = make(engine)
    assert look(intake, message) == [TAKE]
    assert len(intake.claims) == 0


@pytest.mark.parametrize(
    "header", [None, 5, "x", [], [1], [1, 2, 3], [0, 5], [-1, 5], [True, 1], [1.0, 1], ["1", "1"]]
)
def test_a_size_that_makes_no_sense_is_measured(engine: FakeEngine, header: Any) -> None:
    message = full(GOOD, **{SIZE_HEADER: header})
    assert make(engine).size_of(message) == (5, 5)
    assert engine.counted == 1


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_a_size_is_measured_once_and_kept_in_the_message(
    engine: FakeEngine, serializer: str
) -> None:
    intake = make(engine)
    message = full(GOOD, serializer)
    assert intake.size_of(message) == (5, 5)
    assert message["headers"][SIZE_HEADER] == [5, 5]
    assert intake.size_of(message) == (5, 5)
    assert engine.counted == 1
