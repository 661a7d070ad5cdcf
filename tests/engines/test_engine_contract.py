"""What every engine must do: one suite over all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import pytest

from inferq import Handoff, InvalidRequest, Request, RequestTooLarge, Settings
from inferq.engines import Chunk, Engine, create_engine
from inferq.engines.base import Received
from inferq.errors import KvLost
from inferq.transfer import Transfer, create_transfer

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


class Pair(NamedTuple):
    """Two engines of one kind, as two nodes have them."""

    first: Engine
    second: Engine
    transfers: list[Transfer]


def with_pair(name: str, check: Callable[[Pair], Awaitable[None]]) -> None:
    async def run() -> None:
        settings = ENGINES[name].model_copy(update={"scheduler_name": "splitwise"})
        engines = [create_engine(settings) for _ in range(2)]
        transfers = [create_transfer(settings) for _ in engines]
        for engine, transfer in zip(engines, transfers, strict=True):
            await transfer.start()
            engine.use_transfer(transfer)
            await engine.start()
        try:
            async with asyncio.timeout(60):
                await check(Pair(engines[0], engines[1], transfers))
        finally:
            for engine, transfer in zip(engines, transfers, strict=True):
                await engine.stop()
                await transfer.stop()

    asyncio.run(run())


async def prefill(
    engine: Engine, request: Request, produced: Sequence[int] = ()
) -> tuple[list[Chunk], Handoff]:
    chunks = await read(engine.prefill(request, produced))
    handoff = chunks[-1].handoff
    assert handoff is not None
    # As it arrives at the other node.
    return chunks, Handoff.parse(json.loads(json.dumps(handoff.model_dump())))


async def turns(count: int) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def ask(request_id: str = "r", **fields: Any) -> Request:
    defaults = {"prompt": "The sea is", "max_tokens": 12, "seed": 7, "ignore_eos": True}
    return Request.parse({**defaults, **fields, "request_id": request_id})


async def read(chunks: AsyncIterator[Chunk]) -> list[Chunk]:
    return [chunk async for chunk in chunks]


def text(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


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


def test_a_prefill_gives_its_token_at_once_and_then_the_handoff_alone(name: str) -> None:
    async def check(engine: Engine) -> None:
        request = ask(temperature=0)
        whole = await read(engine.generate(request))
        first, second = await read(engine.prefill(request))
        assert first.token_ids == tuple(tokens(whole)[:1])
        assert first.handoff is None
        assert first.finish_reason is None
        assert second.token_ids == ()
        assert second.handoff is not None
        assert second.handoff.token_ids == first.token_ids
        assert second.handoff.text == first.text
        assert second.handoff.protocols == engine.transfer_protocols

    with_engine(name, check)


def test_a_handoff_within_one_engine_needs_nothing_else(name: str) -> None:
    async def check(engine: Engine) -> None:
        request = ask(temperature=0)
        whole = tokens(await read(engine.generate(request)))
        chunks, handoff = await prefill(engine, request)
        received = await engine.receive(handoff)
        rest = await read(engine.decode(request, handoff, received))
        assert tokens(chunks) + tokens(rest) == whole

    with_engine(name, check)


def test_prefill_and_decode_on_two_engines_give_one_answer(name: str) -> None:
    async def check(pair: Pair) -> None:
        request = ask(temperature=0)
        whole = await read(pair.second.generate(request))
        chunks, handoff = await prefill(pair.first, request)
        received = await pair.second.receive(handoff)
        assert (received.nbytes > 0) is (name != "noop")
        rest = await read(pair.second.decode(request, handoff, received))
        assert tokens(chunks) + tokens(rest) == tokens(whole)
        assert text(chunks) + text(rest) == text(whole)
        assert rest[-1].finish_reason == whole[-1].finish_reason

    with_pair(name, check)


def test_a_prefill_goes_on_behind_tokens_that_are_known(name: str) -> None:
    async def check(pair: Pair) -> None:
        assert pair.first.resumes
        request = ask(temperature=0)
        whole = tokens(await read(pair.second.generate(request)))
        for known in (1, 5, 10):
            chunks, handoff = await prefill(pair.first, request, whole[:known])
            assert tokens(chunks) == whole[known : known + 1]
            assert list(handoff.token_ids) == whole[: known + 1]
            assert handoff.prompt_tokens == pair.first.count_tokens(request)
            received = await pair.second.receive(handoff)
            rest = await read(pair.second.decode(request, handoff, received))
            assert tokens(rest) == whole[known + 1 :]
        last = await read(pair.first.prefill(request, whole[:11]))
        assert tokens(last) == whole[11:]
        assert last[-1].finish_reason == "length"

    with_pair(name, check)


def test_a_stop_string_is_found_across_a_handoff(name: str) -> None:
    if name == "noop":
        pytest.skip("it has no text")

    async def check(pair: Pair) -> None:
        plain = await read(pair.second.generate(ask(temperature=0)))
        shown = [chunk.text for chunk in plain if chunk.text]
        request = ask(temperature=0, stop=[shown[0][-1:] + shown[1][:2]])
        whole = await read(pair.second.generate(request))
        assert whole[-1].finish_reason == "stop"
        chunks, handoff = await prefill(pair.first, request)
        received = await pair.second.receive(handoff)
        rest = await read(pair.second.decode(request, handoff, received))
        assert text(chunks) + text(rest) == text(whole)
        assert rest[-1].finish_reason == "stop"

    with_pair(name, check)


def test_a_cache_that_is_gone_is_lost_and_can_be_computed_again(name: str) -> None:
    if name == "noop":
        pytest.skip("it has no KV cache")

    async def check(pair: Pair) -> None:
        request = ask(temperature=0)
        whole = tokens(await read(pair.second.generate(request)))
        chunks, handoff = await prefill(pair.first, request)
        pair.transfers[0].free([request.request_id])
        with pytest.raises(KvLost):
            await pair.second.receive(handoff)
        rest = await read(pair.second.decode(request, handoff, Received()))
        assert tokens(chunks) + tokens(rest) == whole

    with_pair(name, check)


def test_a_cache_that_the_engine_refuses_fails_its_own_request_alone(name: str) -> None:
    if name == "noop":
        pytest.skip("it has no KV cache")

    async def check(pair: Pair) -> None:
        idle = pair.second.capacity()
        request = ask(temperature=0)
        _, handoff = await prefill(pair.first, request)
        received = await pair.second.receive(handoff)
        other = asyncio.create_task(read(pair.second.generate(ask("other", max_tokens=60))))
        for damaged in (received.data[:-9], received.data[:0]):
            with pytest.raises(KvLost, match="refused"):
                await read(pair.second.decode(request, handoff, received._replace(data=damaged)))
        assert len(tokens(await other)) == 60
        assert pair.second.capacity() == idle

    with_pair(name, check)


async def leave_prefill(pair: Pair, *, chunks_read: int, steps: int) -> int:
    """Read some chunks, let the engine go on for some turns, and leave; what is kept then."""
    started = pair.first.prefill(ask(prompt="The sea is " * 8))
    async with aclosing(started) as chunks:  # type: ignore[type-var]
        first = asyncio.ensure_future(anext(chunks))
        if chunks_read == 0:
            await turns(1 + steps)
            first.cancel()
            await asyncio.wait([first])
        for number in range(chunks_read):
            await (first if number == 0 else anext(chunks))
            await turns(steps)
    await turns(3)  # what is cancelled hears of it at its next turn
    return len(pair.transfers[0].kept())


@pytest.mark.parametrize("chunks_read", range(3))
def test_a_prefill_that_is_left_leaves_nothing_behind_unless_it_was_handed_off(
    name: str, chunks_read: int
) -> None:
    async def check(pair: Pair) -> None:
        idle = pair.first.capacity()
        handed_off = chunks_read == 2 and name != "noop"
        for steps in range(6):
            kept = await leave_prefill(pair, chunks_read=chunks_read, steps=steps)
            assert kept == handed_off
            assert pair.first.capacity() == idle
            pair.transfers[0].free(["r"])
        assert len(tokens(await read(pair.first.generate(ask())))) == 12

    with_pair(name, check)


def test_a_decode_that_is_aborted_gives_everything_back(name: str) -> None:
    async def check(pair: Pair) -> None:
        idle = pair.second.capacity()
        request = ask(prompt="The sea is " * 8, max_tokens=300)
        for steps in range(6):
            _, handoff = await prefill(pair.first, request)
            received = await pair.second.receive(handoff)
            answer = asyncio.create_task(read(pair.second.decode(request, handoff, received)))
            await turns(1 + steps)
            if pair.second.abort("r"):
                assert (await answer)[-1].finish_reason == "cancelled"
            await answer
            assert pair.second.capacity() == idle
        assert len(tokens(await read(pair.second.generate(ask())))) == 12

    with_pair(name, check)


def test_stopping_while_caches_move_ends_cleanly(name: str) -> None:
    async def check(pair: Pair) -> None:
        leaving = [pair.first.prefill(ask(str(n))) for n in range(3)]
        for chunks in leaving:
            await anext(chunks)
        await pair.first.stop()
        for chunks in leaving:
            last = (await read(chunks))[-1]
            assert last.handoff is not None or last.finish_reason == "cancelled"

    with_pair(name, check)


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
