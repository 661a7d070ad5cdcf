"""What every engine must do, in front of stand-ins that know all fields."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from inferq import InvalidRequest, RequestTooLarge
from tests.engines.openai.pairs import SGLangStandIn, VllmStandIn
from tests.engines.openai.support import ask, engine_for, read, run, tokens

each = pytest.mark.parametrize("server_of", [VllmStandIn, SGLangStandIn])


@each
def test_an_answer_has_max_tokens_and_says_so_once(server_of: Any) -> None:
    async def check() -> None:
        async with server_of() as server, engine_for(server) as engine:
            chunks = await read(engine.generate(ask(max_tokens=12, ignore_eos=True)))
            assert len(tokens(chunks)) == 12
            assert [c.finish_reason for c in chunks if c.finish_reason] == ["length"]
            assert chunks[-1].finish_reason == "length"

    run(check())


@each
def test_the_same_request_gives_the_same_tokens(server_of: Any) -> None:
    async def check() -> None:
        async with server_of() as server, engine_for(server) as engine:
            first = await read(engine.generate(ask(temperature=1.0)))
            again = await read(engine.generate(ask(temperature=1.0)))
            other = await read(engine.generate(ask(temperature=1.0, seed=8)))
            assert tokens(first) == tokens(again) != tokens(other)

    run(check())


@each
def test_room_is_taken_at_the_call_and_given_back_at_every_end(server_of: Any) -> None:
    async def check() -> None:
        async with server_of() as server, engine_for(server) as engine:
            idle = engine.capacity()
            await read(engine.generate(ask("whole")))
            async with aclosing(engine.generate(ask("left", max_tokens=400))) as chunks:  # type: ignore[type-var]
                assert engine.capacity().free_slots == idle.free_slots - 1
                assert engine.capacity().free_blocks < idle.free_blocks
                await anext(chunks)
            aborted = engine.generate(ask("aborted", max_tokens=400))
            await anext(aborted)
            assert engine.abort("aborted")
            assert (await read(aborted))[-1].finish_reason == "cancelled"
            assert engine.capacity() == idle

    run(check())


@each
def test_more_requests_than_slots_are_all_answered(server_of: Any) -> None:
    async def check() -> None:
        async with server_of() as server, engine_for(server, max_slots=4) as engine:
            requests = [ask(str(n), max_tokens=4) for n in range(20)]
            answers = await asyncio.gather(*(read(engine.generate(r)) for r in requests))
            assert [len(tokens(answer)) for answer in answers] == [4] * 20

    run(check())


@each
def test_what_is_wrong_or_too_large_is_refused(server_of: Any) -> None:
    async def check() -> None:
        async with server_of() as server, engine_for(server, max_model_len=4096) as engine:
            longest = engine.capacity().max_model_len
            for fields in (
                {"max_tokens": longest},
                {"prompt_token_ids": [1] * longest},
            ):
                with pytest.raises(RequestTooLarge):
                    engine.count_tokens(ask(**fields))
                with pytest.raises(RequestTooLarge):
                    await read(engine.generate(ask(**fields)))
            # Only the server knows its vocabulary.
            with pytest.raises(InvalidRequest, match="out of vocabulary"):
                await read(engine.generate(ask(prompt_token_ids=[2**30])))
            assert len(tokens(await read(engine.generate(ask())))) == 6

    run(check())


@each
def test_stop_tokens_end_an_answer_but_not_before_min_tokens(server_of: Any) -> None:
    async def check() -> None:
        async with server_of() as server, engine_for(server) as engine:
            whole = tokens(await read(engine.generate(ask(temperature=0))))
            early = await read(engine.generate(ask(temperature=0, stop_token_ids=[whole[2]])))
            assert tokens(early) == whole[:3]
            assert early[-1].finish_reason == "stop"
            late = await read(
                engine.generate(ask(temperature=0, stop_token_ids=[whole[2]], min_tokens=4))
            )
            assert tokens(late) == whole

    run(check())
