"""A step that fails takes with it only the requests at fault."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from inferq import EngineError, EngineStartError, EngineStepError, Request
from inferq.engines.batching import BatchingEngine, Limits, Row
from inferq.engines.simulated import SimulatedExecutor
from inferq.settings import SimulatedSettings


class Faulty(SimulatedExecutor):
    """Raises in every step that contains a prompt of a poisoned length."""

    def __init__(self, poison: int, *, dies: bool = False, blocks: int = 1000) -> None:
        super().__init__(SimulatedSettings(speedup=float("inf"), total_blocks=blocks, block_size=4))
        self.poison = poison
        self.dies = dies
        self.starts = 0

    async def start(self) -> Limits:
        self.starts += 1
        if self.dies and self.starts > 1:
            raise EngineStartError("the card has fallen off the bus")
        return await super().start()

    async def run(self, rows: Sequence[Row]) -> list[int | None]:
        if any(len(row.tokens) == self.poison for row in rows):
            raise RuntimeError("poisoned")
        return await super().run(rows)


def run(executor: Faulty, check: Callable[[BatchingEngine], Awaitable[None]]) -> None:
    async def main() -> None:
        engine = BatchingEngine(executor, reserved_output_blocks=1)
        await engine.start()
        try:
            async with asyncio.timeout(60):
                await check(engine)
        finally:
            await engine.stop()

    asyncio.run(main())


async def answer(engine: BatchingEngine, name: str, prompt: int, max_tokens: int = 20) -> int:
    request = Request.parse(
        {"request_id": name, "prompt_token_ids": [5] * prompt, "max_tokens": max_tokens}
    )
    return sum([len(chunk.token_ids) async for chunk in engine.generate(request)])


def test_only_the_requests_at_fault_fail() -> None:
    async def check(engine: BatchingEngine) -> None:
        prompts = [3, 7, 5, 7, 9, 11, 3]
        results = await asyncio.gather(
            *(answer(engine, str(n), length) for n, length in enumerate(prompts)),
            return_exceptions=True,
        )
        for length, result in zip(prompts, results, strict=True):
            if length == 7:
                assert isinstance(result, EngineStepError)
                assert "poisoned" in str(result)
            else:
                assert result == 20
        assert engine.capacity().free_blocks == engine.capacity().total_blocks

    run(Faulty(7), check)


def test_an_executor_that_computes_nothing_any_more_is_restarted() -> None:
    executor = Faulty(7)

    async def check(engine: BatchingEngine) -> None:
        for n in range(3):
            with pytest.raises(EngineStepError):
                await answer(engine, str(n), 7)
        assert await answer(engine, "after", 3) == 20

    run(executor, check)
    assert executor.starts == 2


def test_an_engine_that_does_not_come_back_says_why() -> None:
    async def check(engine: BatchingEngine) -> None:
        for n in range(3):
            with pytest.raises(EngineError):
                await answer(engine, str(n), 7)
        for _ in range(1000):
            await asyncio.sleep(0)
        with pytest.raises(EngineError, match="fallen off the bus"):
            await answer(engine, "after", 3)

    run(Faulty(7, dies=True), check)


def test_answers_are_exact_though_requests_are_preempted() -> None:
    async def check(engine: BatchingEngine) -> None:
        lengths = await asyncio.gather(
            *(answer(engine, str(n), 4 + n % 3, max_tokens=60) for n in range(12))
        )
        assert lengths == [60] * 12
        assert engine.capacity().free_blocks == engine.capacity().total_blocks

    run(Faulty(-1, blocks=40), check)


def test_any_thread_may_ask_for_the_capacity_while_requests_come_and_go() -> None:
    async def check(engine: BatchingEngine) -> None:
        done = threading.Event()
        asked = asyncio.create_task(asyncio.to_thread(ask_all_the_time, engine, done))
        for turn in range(20):
            await asyncio.gather(*(answer(engine, f"{turn}/{n}", 4, 3) for n in range(100)))
        done.set()
        assert await asked > 0

    run(Faulty(-1, blocks=40), check)


def ask_all_the_time(engine: BatchingEngine, done: threading.Event) -> int:
    count = 0
    while not done.is_set():
        assert 0 <= engine.capacity().free_blocks <= engine.capacity().total_blocks
        count += 1
    return count
