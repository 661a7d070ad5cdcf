"""KV caches that leave and reach a batching engine while others compute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from inferq import EngineError, Handoff, InvalidRequest, Request, RequestTooLarge
from inferq.engines.base import Chunk
from inferq.engines.batching import BatchingEngine
from inferq.engines.simulated import SimulatedExecutor
from inferq.errors import KvLost
from inferq.settings import SimulatedSettings
from inferq.transfer.memory import MemoryTransfer


class Gated(SimulatedExecutor):
    """Exports and imports wait for a gate; they fail when told to."""

    def __init__(self, **options: Any) -> None:
        fast = {"speedup": float("inf"), "total_blocks": 40, "block_size": 4}
        super().__init__(SimulatedSettings(**{**fast, **options}))
        self.gate = asyncio.Event()
        self.moving = asyncio.Event()
        self.error: Exception | None = None

    async def _pass(self) -> None:
        self.moving.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    async def export_kv(self, slot: int, tokens: int, memory: memoryview) -> None:
        await self._pass()
        await super().export_kv(slot, tokens, memory)

    async def import_kv(self, slot: int, tokens: int, memory: memoryview) -> None:
        await self._pass()
        await super().import_kv(slot, tokens, memory)


Check = Callable[[BatchingEngine, Gated, MemoryTransfer], Awaitable[None]]


def run(check: Check, **options: Any) -> None:
    async def main() -> None:
        executor, transfer = Gated(**options), MemoryTransfer()
        engine = BatchingEngine(executor, reserved_output_blocks=1)
        engine.use_transfer(transfer)
        await engine.start()
        idle = engine.capacity()
        try:
            async with asyncio.timeout(60):
                await check(engine, executor, transfer)
                assert engine.capacity() == idle
                assert transfer.kept() == []
        finally:
            await engine.stop()
            await transfer.stop()

    asyncio.run(main())


def ask(name: str = "r", prompt: int = 10, max_tokens: int = 20) -> Request:
    return Request.parse(
        {"request_id": name, "prompt_token_ids": [5] * prompt, "max_tokens": max_tokens}
    )


async def read(chunks: AsyncIterator[Chunk]) -> list[Chunk]:
    return [chunk async for chunk in chunks]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def handed_off(engine: BatchingEngine, executor: Gated, request: Request) -> Handoff:
    executor.gate.set()
    handoff = (await read(engine.prefill(request)))[-1].handoff
    assert handoff is not None
    executor.gate.clear()
    executor.moving.clear()
    return handoff


def test_others_compute_while_a_cache_leaves() -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        leaving = engine.prefill(ask("leaving"))
        assert (await anext(leaving)).token_ids
        await executor.moving.wait()
        held = engine.capacity()
        assert len(await read(engine.generate(ask("other")))) == 20
        assert engine.capacity() == held
        executor.gate.set()
        assert (await anext(leaving)).handoff is not None
        transfer.free(["leaving"])

    run(check)


@pytest.mark.parametrize("how", ["abort", "close", "stop"])
def test_a_prefill_ended_while_its_cache_leaves_keeps_nothing(how: str) -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        async with aclosing(engine.prefill(ask())) as leaving:  # type: ignore[type-var]
            await anext(leaving)
            await executor.moving.wait()
            if how == "abort":
                assert engine.abort("r")
                assert (await anext(leaving)).finish_reason == "cancelled"
            if how == "stop":
                await engine.stop()
        await turns()

    run(check)


def test_a_handoff_that_nobody_reads_is_not_kept() -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        executor.gate.set()
        async with aclosing(engine.prefill(ask())) as leaving:  # type: ignore[type-var]
            await anext(leaving)
            await turns(20)
            assert len(transfer.kept()) == 1

    run(check)


@pytest.mark.parametrize("error", [EngineError("no"), RuntimeError("no")])
def test_a_cache_that_cannot_be_exported_fails_its_request(error: Exception) -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        executor.error = error
        executor.gate.set()
        leaving = engine.prefill(ask())
        await anext(leaving)
        with pytest.raises(EngineError, match="no"):
            await anext(leaving)

    run(check)


@pytest.mark.parametrize("error", [EngineError("no"), RuntimeError("no")])
def test_a_cache_that_cannot_be_imported_is_lost(error: Exception) -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        handoff = await handed_off(engine, executor, ask())
        received = await engine.receive(handoff)
        executor.error = error
        executor.gate.set()
        with pytest.raises(KvLost, match="no"):
            await read(engine.decode(ask(), handoff, received))

    run(check)


@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_decode_ended_while_its_cache_arrives_gives_its_room_back(how: str) -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        handoff = await handed_off(engine, executor, ask())
        received = await engine.receive(handoff)
        arriving = engine.decode(ask(), handoff, received)
        first = asyncio.ensure_future(anext(arriving))
        await executor.moving.wait()
        if how == "abort":
            assert engine.abort("r")
            assert (await first).finish_reason == "cancelled"
        else:
            first.cancel()
            await asyncio.wait([first])

    run(check)


def test_a_full_engine_goes_on_when_what_is_held_lets_go() -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        leaving = [engine.prefill(ask(f"leaving/{n}", prompt=30)) for n in range(3)]
        for chunks in leaving:
            await anext(chunks)
        # Its answer needs blocks that only those who leave have.
        growing = asyncio.create_task(read(engine.generate(ask("growing", 30, 60))))
        await turns(500)
        assert not growing.done()
        executor.gate.set()
        for chunks in leaving:
            assert (await anext(chunks)).handoff is not None
        assert len(await growing) == 60
        transfer.free([f"leaving/{n}" for n in range(3)])

    run(check)


def test_a_prefill_needs_room_for_its_own_part_only() -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        long = ask(prompt=150, max_tokens=100)
        assert engine.count_tokens(long) == 150
        handoff = await handed_off(engine, executor, long)
        transfer.free(["r"])
        with pytest.raises(RequestTooLarge):
            engine.generate(long)
        with pytest.raises(RequestTooLarge):
            engine.prefill(ask(prompt=160))
        with pytest.raises(RequestTooLarge):
            engine.prefill(ask(prompt=150, max_tokens=200_000))
        assert handoff.prompt_tokens == 150

    run(check)


@pytest.mark.parametrize("tokens", [(2**31 - 1,), (1,) * 21])
def test_a_handoff_with_impossible_tokens_is_refused(tokens: tuple[int, ...]) -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        with pytest.raises(InvalidRequest, match=r"handoff\.token_ids"):
            engine.prefill(ask(), tokens)

    run(check)


def test_tokens_that_end_the_answer_need_no_computing() -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        [last] = await read(engine.prefill(ask(), (1,) * 20))
        assert last == Chunk(finish_reason="length")

    run(check)


def test_caches_and_answers_stay_exact_when_blocks_are_scarce() -> None:
    async def check(engine: BatchingEngine, executor: Gated, transfer: MemoryTransfer) -> None:
        executor.gate.set()

        async def split(name: str, prompt: int) -> list[int]:
            request = ask(name, prompt, 40)
            first, last = await read(engine.prefill(request))
            assert last.handoff is not None
            received = await engine.receive(last.handoff)
            rest = await read(engine.decode(request, last.handoff, received))
            return [t for chunk in (first, *rest) for t in chunk.token_ids]

        async def whole(name: str, prompt: int) -> list[int]:
            chunks = await read(engine.generate(ask(name, prompt, 40)))
            return [t for chunk in chunks for t in chunk.token_ids]

        answers = await asyncio.gather(
            *(f(f"{f.__name__}/{n}", 4 + n) for n in range(12) for f in (split, whole))
        )
        assert answers[::2] == answers[1::2]

    run(check, total_blocks=30)
