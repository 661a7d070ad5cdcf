"""What every engine must do: one suite over all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from inferq import InvalidRequest, Request, RequestTooLarge, Settings
from inferq.engines import Chunk, Engine, create_engine

LLAMA = {"context_tokens": 1024, "max_slots": 8, "threads": 1}
ENGINES = {
    "simulated": Settings(
        engine="simulated", simulated={"speedup": float("inf"), "max_slots": 8, "block_size": 16}
    ),
    "noop": Settings(engine="noop"),
    "llamacpp": Settings(engine="llamacpp", llamacpp=LLAMA),
}
pytestmark = pytest.mark.parametrize("name", ENGINES)
Check = Callable[[Engine], Awaitable[None]]


def with_engine(name: str, check: Check) -> None:
    async def run() -> None:
        engine = create_engine(ENGINES[name])
        await engine.start()
        try:
            async with asyncio.timeout(60):
                await check(engine)
        finally:
            await engine.stop()

    asyncio.run(run())


def ask(request_id: str = "r", **fields: Any) -> Request:
    defaults = {"prompt": "The sea is", "max_tokens": 12, "seed": 7, "ignore_eos": True}
    return Request.parse({**defaults, **fields, "request_id": request_id})


async def read(chunks: AsyncIterator[Chunk]) -> list[Chunk]:
    return [chunk async for chunk in chunks]


def tokens(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


def test_an_answer_has_max_tokens_and_says_so_once(name: str) -> None:
    async def check(engine: Engine) -> None:
        chunks = await read(engine.generate(ask()))
        assert len(tokens(chunks)) == 12
        assert [c.finish_reason for c in chunks if c.finish_reason] == ["length"]
        assert chunks[-1].finish_reason == "length"

    with_engine(name, check)


def test_the_same_request_gives_the_same_tokens(name: str) -> None:
    async def check(engine: Engine) -> None:
        first = await read(engine.generate(ask(temperature=1.0)))
        again = await read(engine.generate(ask(temperature=1.0)))
        assert tokens(first) == tokens(again)

    with_engine(name, check)


def test_prefill_and_decode_continue_each_other(name: str) -> None:
    async def check(engine: Engine) -> None:
        request = ask(temperature=0)
        whole = tokens(await read(engine.generate(request)))
        prefilled = await read(engine.prefill(request))
        handoff = prefilled[-1].handoff
        assert handoff is not None
        assert handoff.protocol in engine.transfer_protocols
        assert list(handoff.token_ids) == tokens(prefilled)
        rest = await read(engine.decode(request, handoff))
        assert tokens(prefilled) + tokens(rest) == whole

    with_engine(name, check)


def test_decode_works_when_the_kept_cache_is_gone(name: str) -> None:
    async def check(engine: Engine) -> None:
        request = ask(temperature=0)
        whole = tokens(await read(engine.generate(request)))
        prefilled = await read(engine.prefill(request))
        handoff = prefilled[-1].handoff
        assert handoff is not None
        lost = handoff.model_copy(update={"kv": {"key": "gone"}})
        rest = await read(engine.decode(request, lost))
        assert tokens(prefilled) + tokens(rest) == whole

    with_engine(name, check)


def test_a_prefill_of_one_token_ends_the_answer(name: str) -> None:
    async def check(engine: Engine) -> None:
        [chunk] = await read(engine.prefill(ask(max_tokens=1)))
        assert chunk.finish_reason == "length"
        assert chunk.handoff is None

    with_engine(name, check)


def test_room_is_taken_at_the_call_and_given_back_at_every_end(name: str) -> None:
    async def check(engine: Engine) -> None:
        idle = engine.capacity()
        await read(engine.generate(ask("whole")))
        async with aclosing(engine.generate(ask("left", max_tokens=400))) as chunks:  # type: ignore[type-var]
            await anext(chunks)
            assert engine.capacity().free_slots == idle.free_slots - 1
        aborted = engine.generate(ask("aborted", max_tokens=400))
        await anext(aborted)
        assert engine.abort("aborted")
        assert (await read(aborted))[-1].finish_reason == "cancelled"
        assert not engine.abort("aborted")
        assert engine.capacity() == idle

    with_engine(name, check)


def test_more_requests_than_slots_are_all_answered(name: str) -> None:
    async def check(engine: Engine) -> None:
        requests = [ask(str(n), max_tokens=4) for n in range(20)]
        answers = await asyncio.gather(*(read(engine.generate(r)) for r in requests))
        assert [len(tokens(answer)) for answer in answers] == [4] * 20

    with_engine(name, check)


def test_what_is_wrong_or_too_large_is_refused(name: str) -> None:
    if name == "noop":
        pytest.skip("it has neither vocabulary nor memory")

    async def check(engine: Engine) -> None:
        longest = engine.capacity().max_model_len
        for error, fields in (
            (InvalidRequest, {"prompt": None, "prompt_token_ids": [2**30]}),
            (RequestTooLarge, {"max_tokens": longest}),
            (RequestTooLarge, {"prompt": None, "prompt_token_ids": [1] * longest}),
        ):
            with pytest.raises(error):
                engine.count_tokens(ask(**fields))
            with pytest.raises(error):
                await read(engine.generate(ask(**fields)))
        assert len(tokens(await read(engine.generate(ask())))) == 12

    with_engine(name, check)


def test_stop_tokens_end_an_answer_but_not_before_min_tokens(name: str) -> None:
    if name == "noop":
        pytest.skip("it does not sample")

    async def check(engine: Engine) -> None:
        whole = tokens(await read(engine.generate(ask(temperature=0))))
        stop = whole[5]
        first = whole.index(stop)
        early = await read(engine.generate(ask(temperature=0, stop_token_ids=[stop])))
        assert tokens(early) == whole[: first + 1]
        assert early[-1].finish_reason == "stop"
        late = await read(
            engine.generate(ask(temperature=0, stop_token_ids=[stop], min_tokens=first + 2))
        )
        assert len(tokens(late)) >= first + 2

    with_engine(name, check)


def test_stopping_ends_what_runs_and_can_be_repeated(name: str) -> None:
    async def check(engine: Engine) -> None:
        chunks = engine.generate(ask(max_tokens=400))
        await anext(chunks)
        await engine.stop()
        assert (await read(chunks))[-1].finish_reason == "cancelled"
        await engine.stop()

    with_engine(name, check)
