"""Bounds on what a request may ask for: at its producer, and again at its node."""

from __future__ import annotations

import re
from typing import Any

import pytest

from inferq import Client, InvalidRequest
from inferq.errors import RequestTooLarge
from inferq.messages import Request
from tests.support import LONG_S, fast

LIMITS = {"max_prompt_tokens": 10, "max_prompt_characters": 20, "max_output_tokens": 5}
TURNS = [{"role": "user", "content": "twelve chars"}] * 2
TOO_LARGE: list[tuple[dict[str, Any], str]] = [
    (
        {"prompt_token_ids": [1] * 11},
        "prompt_token_ids: 11 tokens; limits.max_prompt_tokens is 10",
    ),
    ({"prompt": "x" * 21}, "prompt: 21 characters; limits.max_prompt_characters is 20"),
    ({"messages": TURNS}, "messages: 24 characters; limits.max_prompt_characters is 20"),
    (
        {"prompt": "x", "max_tokens": 6},
        "max_tokens: 6 tokens; limits.max_output_tokens is 5",
    ),
]


@pytest.mark.parametrize(("fields", "said"), TOO_LARGE)
def test_a_producer_is_told_at_once(fields: dict[str, Any], said: str) -> None:
    with Client(fast(limits=LIMITS)) as client, pytest.raises(RequestTooLarge) as caught:
        client.submit(**{"max_tokens": 1, **fields})
    assert str(caught.value) == said


@pytest.mark.parametrize(("fields", "said"), TOO_LARGE)
def test_a_node_does_not_trust_producers(fields: dict[str, Any], said: str) -> None:
    with Client(fast(limits=LIMITS)) as client:
        sent = client.app.send_task("inferq.prefill", kwargs={"max_tokens": 1, **fields})
        with pytest.raises(Exception, match=re.escape(said)):
            sent.get(timeout=LONG_S)


def test_what_is_at_the_bounds_is_answered() -> None:
    with Client(fast(limits=LIMITS)) as client:
        result = client.generate(prompt_token_ids=[1] * 10, max_tokens=5, timeout=LONG_S)
        assert len(result.token_ids) == 5
        client.generate(prompt="x" * 20, max_tokens=5, timeout=LONG_S)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"metadata": {"k": "x" * 16_384}}, "metadata"),
        ({"metadata": {"k" * 16_385: 1}}, "metadata"),
        ({"stop": ["x" * 1025]}, "stop.0"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"request_id": "x" * 201}, "request_id"),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids"),
        ({"max_tokens": 1_000_001}, "max_tokens"),
    ],
)
def test_every_field_has_a_bound(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Request.parse({"request_id": "r", "prompt": "x", **fields})
    assert caught.value.field == field
    assert len(str(caught.value)) < 200


def test_a_conversation_has_a_bound() -> None:
    turns = [{"role": "user", "content": "x"}] * 10_001
    with pytest.raises(InvalidRequest, match="messages"):
        Request.parse({"request_id": "r", "messages": turns})
