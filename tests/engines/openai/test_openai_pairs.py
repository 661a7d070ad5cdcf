"""Prefill on one server, decode on another: together they give the whole answer."""

from __future__ import annotations

from typing import Any

import pytest

from inferq.engines.base import Received
from tests.engines.openai.pair_support import PAIRS, both_halves, first_half, pair_of
from tests.engines.openai.support import ask, expected, read, run, text, tokens, words

each = pytest.mark.parametrize("flavour", PAIRS)
meeting = pytest.mark.parametrize("flavour", ["sglang", "fastdeploy"])
CHAT = [{"role": "user", "content": "What is the sea?"}]


@each
@pytest.mark.parametrize(
    "prompt", [{"prompt": "The sea is"}, {"prompt_token_ids": [5, 6, 7]}, {"messages": CHAT}]
)
def test_a_pair_gives_the_answer_of_one_server(flavour: str, prompt: dict[str, Any]) -> None:
    async def check() -> None:
        request = ask(**prompt)
        want = expected(request)
        async with pair_of(flavour) as pair:
            before, after = await both_halves(pair, request)
            assert pair.idle()
            assert pair.fabric.leaked == []
        assert tokens(after) == want
        assert text(after) == words(want)
        assert after[-1].finish_reason == "length"
        # What prefill says early is what decode says again.
        assert tokens(before) == (want[:1] if flavour == "vllm" else [])
        assert text(before) == (words(want[:1]) if flavour == "vllm" else "")

    run(check())


@each
def test_the_handoff_says_how_and_from_where(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour) as pair:
            _, handoff, rest = await first_half(pair, ask(prompt_token_ids=[1, 2, 3]))
            await rest.aclose()
            assert handoff.family == pair.prefill.handoff == pair.decode.handoff
            assert handoff.family == ("sequential" if flavour == "vllm" else "concurrent")
            assert handoff.protocols == pair.prefill.transfer_protocols != ()
            assert (handoff.request_id, handoff.prompt_tokens) == ("r", 3)
            assert handoff.token_ids == ()
            assert await pair.decode.receive(handoff) == Received()

    run(check())


@meeting
def test_a_concurrent_prefill_says_where_to_meet_before_it_begins(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour) as pair:
            chunks = pair.prefill.prefill(ask())
            first = await anext(chunks)
            assert first.handoff is not None
            await chunks.aclose()  # type: ignore[attr-defined]
            assert pair.idle()

    run(check())


@each
def test_every_attempt_meets_at_a_place_of_its_own(flavour: str) -> None:
    async def check() -> None:
        places = []
        async with pair_of(flavour) as pair:
            for _ in range(2):
                before, handoff, rest = await first_half(pair, ask())
                places.append(str(handoff.kv))
                await rest.aclose()
                del before
        assert places[0] != places[1]

    run(check())


def test_an_answer_of_one_token_needs_no_decode() -> None:
    async def check() -> None:
        async with pair_of("vllm") as pair:
            [chunk] = await read(pair.prefill.prefill(ask(max_tokens=1)))
            assert chunk.finish_reason == "length"
            assert tokens([chunk]) == expected(ask())[:1]
            pair.prefill_server.end_after = 1
            [chunk] = await read(pair.prefill.prefill(ask("ends")))
            assert chunk.finish_reason == "stop"
            assert pair.fabric.leaked == []
            # Decode may not end before min_tokens, though prefill's token looks like an end.
            before, after = await both_halves(pair, ask("long", min_tokens=3))
            assert before == []
            assert len(tokens(after)) == 6

    run(check())


@pytest.mark.parametrize(
    ("fields", "openai", "is_early"),
    [
        ({"temperature": 0}, {}, True),
        ({"temperature": 0, "seed": None}, {}, True),
        ({"seed": 7}, {}, True),
        ({"seed": None}, {}, False),
        ({"temperature": 0, "stop": ["x"]}, {}, False),
        ({"temperature": 0, "min_tokens": 2}, {}, False),
        ({"temperature": 0}, {"early_first_token": False}, False),
    ],
)
def test_the_first_token_is_early_only_where_decode_will_say_it_again(
    fields: dict[str, Any], openai: dict[str, Any], is_early: bool
) -> None:
    async def check() -> None:
        async with pair_of("vllm", **openai) as pair:
            before, after = await both_halves(pair, ask(**fields))
            assert tokens(before) == (tokens(after)[:1] if is_early else [])
            assert len(tokens(after)) == 6

    run(check())
