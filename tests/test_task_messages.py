"""The message that a producer of the global scheduler writes is the one that Celery would."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from inferq.messages import Request
from inferq.messages.headers import SUBMITTED_HEADER
from inferq.tasks.messages import Messages, RawMessages

APP = Celery("producer", set_as_current=False, broker="memory://")
ORIGIN = "inferq.0123.4"
QUEUE = "t.prefill"

requests = st.builds(
    lambda **fields: Request.parse(fields),
    request_id=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
    prompt=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    priority=st.integers(0, 9),
    max_tokens=st.integers(1, 100),
    stop=st.lists(st.text('ab"<', min_size=1, max_size=3), max_size=2).map(tuple),
)


@given(requests)
def test_a_raw_message_says_what_celery_and_kombu_would(request: Request) -> None:
    messages = Messages(APP, ORIGIN)
    raw = json.loads(RawMessages(messages, QUEUE).build(request))
    headers, properties, body = messages.build(request)
    submitted = raw["headers"].pop(SUBMITTED_HEADER), headers.pop(SUBMITTED_HEADER)
    assert abs(submitted[0] - submitted[1]) < 60
    assert raw["headers"] == json.loads(json.dumps(headers))
    assert base64.b64decode(raw["body"]) == body
    assert (raw["content-type"], raw["content-encoding"]) == ("application/x-msgpack", "binary")
    assert raw["properties"].pop("delivery_tag")
    assert raw["properties"] == {
        **properties,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "priority": request.priority,
        "body_encoding": "base64",
    }


@given(requests)
def test_a_node_reads_the_request_that_was_written(request: Request) -> None:
    raw: dict[str, Any] = json.loads(RawMessages(Messages(APP, ORIGIN), QUEUE).build(request))
    args, fields, _ = msgpack.unpackb(base64.b64decode(raw["body"]))
    assert args == []
    assert Request.parse({**fields, "request_id": raw["headers"]["id"]}) == request


def test_no_two_messages_have_one_tag() -> None:
    build = RawMessages(Messages(APP, ORIGIN), QUEUE).build
    request = Request.parse({"request_id": "r", "prompt": "p"})
    tags = {json.loads(build(request))["properties"]["delivery_tag"] for _ in range(100)}
    assert len(tags) == 100


def test_a_prompt_is_not_shown() -> None:
    request = Request.parse({"request_id": "r", "prompt": "secret words"})
    message = RawMessages(Messages(APP, ORIGIN), QUEUE).build(request)
    assert b"secret" not in message
    assert b"12 characters" in message
