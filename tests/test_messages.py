from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.errors import InvalidRequest
from inferq.messages import Request

GOOD: dict[str, Any] = {"request_id": "r-1", "prompt": "Hello"}
TURN = {"role": "user", "content": "Hi"}

BAD: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": b"Hello"}),
    ("prompt", {"prompt": 5}),
    ("prompt", {"prompt": "half \ud800 a pair"}),
    ("prompt", {"prompt_token_ids": [1]}),
    ("prompt", {"prompt": None}),
    ("prompt", {"messages": [TURN]}),
    ("prompt_token_ids", {"prompt": None, "prompt_token_ids": []}),
    ("prompt_token_ids.1", {"prompt": None, "prompt_token_ids": [1, -1]}),
    ("prompt_token_ids.0", {"prompt": None, "prompt_token_ids": [1.0]}),
    ("prompt_token_ids.0", {"prompt": None, "prompt_token_ids": [True]}),
    ("prompt_token_ids.0", {"prompt": None, "prompt_token_ids": ["1"]}),
    ("prompt_token_ids.0", {"prompt": None, "prompt_token_ids": [2**31]}),
    ("prompt_token_ids", {"prompt": None, "prompt_token_ids": "12"}),
    ("prompt_token_ids", {"prompt": None, "prompt_token_ids": b"12"}),
    ("messages", {"prompt": None, "messages": []}),
    ("messages.0.content", {"prompt": None, "messages": [{"role": "user"}]}),
    ("messages.0.name", {"prompt": None, "messages": [{**TURN, "name": "x"}]}),
    ("messages.0.role", {"prompt": None, "messages": [{**TURN, "role": ""}]}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": 10**12}),
    ("max_tokens", {"max_tokens": 5.0}),
    ("max_tokens", {"max_tokens": True}),
    ("max_tokens", {"max_tokens": None}),
    ("min_tokens", {"min_tokens": 6, "max_tokens": 5}),
    ("min_tokens", {"min_tokens": -1}),
    ("temperature", {"temperature": float("nan")}),
    ("temperature", {"temperature": float("inf")}),
    ("temperature", {"temperature": -0.1}),
    ("temperature", {"temperature": "0.5"}),
    ("top_p", {"top_p": 0.0}),
    ("top_p", {"top_p": 1.01}),
    ("top_p", {"top_p": float("nan")}),
    ("top_k", {"top_k": -1}),
    ("seed", {"seed": -1}),
    ("seed", {"seed": 2**32}),
    ("stop.0", {"stop": ""}),
    ("stop.1", {"stop": ["a", ""]}),
    ("stop.0", {"stop": [5]}),
    ("stop.0", {"stop": ["\udcff"]}),
    ("stop", {"stop": ["x"] * 17}),
    ("stop_token_ids.0", {"stop_token_ids": [-1]}),
    ("ignore_eos", {"ignore_eos": 1}),
    ("priority", {"priority": 10}),
    ("priority", {"priority": -1}),
    ("deadline", {"deadline": float("inf")}),
    ("deadline", {"deadline": 0.0}),
    ("metadata.a", {"metadata": {"a": {"b": 1}}}),
    ("metadata.a", {"metadata": {"a": [1]}}),
    ("metadata", {"metadata": [1]}),
    ("metadata", {"metadata": {str(n): n for n in range(65)}}),
    ("request_id", {"request_id": ""}),
    ("request_id", {"request_id": "a b"}),
    ("request_id", {"request_id": "a\n"}),
    ("request_id", {"request_id": "x" * 201}),
    ("request_id", {"request_id": 5}),
    ("temprature", {"temprature": 1.0}),
]

token_ids = st.integers(0, 2**31 - 1)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
options = st.fixed_dictionaries(
    {"request_id": st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)},
    optional={
        "max_tokens": st.integers(50, 1_000_000),
        "min_tokens": st.integers(0, 50),
        "temperature": st.floats(0, 100),
        "top_p": st.floats(0, 1, exclude_min=True),
        "top_k": token_ids,
        "seed": st.integers(0, 2**32 - 1) | st.none(),
        "stop": st.lists(words, max_size=16),
        "stop_token_ids": st.lists(token_ids, max_size=5),
        "ignore_eos": st.booleans(),
        "priority": st.integers(0, 9),
        "deadline": st.floats(1, 1e12),
        "metadata": st.dictionaries(
            words, st.booleans() | st.integers(-(2**63), 2**63) | words | st.none(), max_size=4
        ),
    },
)
turns = st.fixed_dictionaries({"role": words, "content": words})
prompts = st.one_of(
    st.fixed_dictionaries({"prompt": words}),
    st.fixed_dictionaries({"prompt_token_ids": st.lists(token_ids, min_size=1, max_size=9)}),
    st.fixed_dictionaries({"messages": st.lists(turns, min_size=1, max_size=3)}),
)
requests = st.builds(lambda a, b: {**a, **b}, options, prompts).map(Request.parse)


@pytest.mark.parametrize(("field", "change"), BAD)
def test_a_bad_field_is_refused_by_name(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Request.parse({**GOOD, **change})
    assert caught.value.field == field
    assert caught.value.reason
    str(caught.value).encode()  # the reason can itself travel


def test_a_request_without_any_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"exactly one .* got none"):
        Request.parse({"request_id": "r"})


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"temprature: unknown.*temperature"):
        Request.parse({**GOOD, "temprature": 1.0})


def test_a_plain_request_has_the_documented_defaults() -> None:
    request = Request.parse(GOOD)
    assert (request.max_tokens, request.temperature, request.top_p, request.top_k) == (128, 1, 1, 0)
    assert (request.priority, request.seed, request.stop, request.deadline) == (0, None, (), None)


def test_one_stop_string_needs_no_list() -> None:
    assert Request.parse({**GOOD, "stop": "\n"}).stop == ("\n",)


def test_the_prompt_is_not_repeated_in_an_error() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Request.parse({**GOOD, "prompt": "a secret", "max_tokens": 0})
    assert "a secret" not in str(caught.value)


@given(requests)
def test_a_request_travels_by_msgpack(request: Request) -> None:
    raw = msgpack.unpackb(msgpack.packb(request.to_wire()), strict_map_key=False)
    assert Request.parse({**raw, "request_id": request.request_id}) == request


@given(requests)
def test_a_request_travels_by_json(request: Request) -> None:
    raw = json.loads(json.dumps(request.to_wire()))
    assert Request.parse({**raw, "request_id": request.request_id}) == request
