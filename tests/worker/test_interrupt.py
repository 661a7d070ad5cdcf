"""Raising an error of choice inside a coroutine that a task drives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from inferq.worker.interrupt import Interruptible


class SoftLimit(Exception):
    """What the tests raise."""


class Driven:
    """A coroutine behind an ``Interruptible``, in a task of its own, at its first await."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.driver = Interruptible(coroutine)
        self.task = asyncio.create_task(self._drive())

    async def _drive(self) -> Any:
        return await self.driver

    @classmethod
    async def begun(cls, body: Callable[[asyncio.Event], Coroutine[Any, Any, Any]]) -> Driven:
        began = asyncio.Event()
        driven = cls(body(began))
        await began.wait()
        return driven

    def interrupt(self) -> None:
        self.driver.interrupt(self.task, SoftLimit())


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_coroutine_that_nobody_interrupts_returns_its_value() -> None:
    async def body() -> str:
        await asyncio.sleep(0)
        return "value"

    async def main() -> None:
        assert await Driven(body()).task == "value"

    asyncio.run(main())


def test_the_error_arrives_at_the_current_await() -> None:
    async def body(began: asyncio.Event) -> None:
        began.set()
        await _forever()

    async def main() -> None:
        driven = await Driven.begun(body)
        driven.interrupt()
        with pytest.raises(SoftLimit):
            await driven.task
        assert not driven.task.cancelled()

    asyncio.run(main())


def test_a_coroutine_may_catch_the_error_and_go_on() -> None:
    async def body(began: asyncio.Event) -> str:
        began.set()
        try:
            await _forever()
        except SoftLimit:
            await asyncio.sleep(0)
        return "in order"

    async def main() -> None:
        driven = await Driven.begun(body)
        driven.interrupt()
        assert await driven.task == "in order"
        assert driven.task.cancelling() == 0

    asyncio.run(main())


def test_a_plain_cancellation_stays_one() -> None:
    seen: list[type[BaseException]] = []

    async def body(began: asyncio.Event) -> None:
        began.set()
        try:
            await _forever()
        except BaseException as exc:
            seen.append(type(exc))
            raise

    async def main() -> None:
        driven = await Driven.begun(body)
        driven.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driven.task

    asyncio.run(main())
    assert seen == [asyncio.CancelledError]


def test_a_cancellation_after_a_caught_error_is_a_cancellation() -> None:
    async def body(began: asyncio.Event) -> None:
        began.set()
        try:
            await _forever()
        except SoftLimit:
            began.set()
            await _forever()

    async def main() -> None:
        began = asyncio.Event()
        driven = Driven(body(began))
        await began.wait()
        began.clear()
        driven.interrupt()
        await began.wait()
        driven.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driven.task

    asyncio.run(main())


def test_a_withdrawn_error_leaves_a_cancellation() -> None:
    async def body(began: asyncio.Event) -> None:
        began.set()
        await _forever()

    async def main() -> None:
        driven = await Driven.begun(body)
        driven.interrupt()
        driven.driver.withdraw()
        driven.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driven.task

    asyncio.run(main())


def test_the_error_of_an_awaited_future_reaches_the_coroutine() -> None:
    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def body(began: asyncio.Event) -> str:
            began.set()
            try:
                await future
            except LookupError:
                return "caught"
            return "missed"

        driven = await Driven.begun(body)
        future.set_exception(LookupError())
        assert await driven.task == "caught"

    asyncio.run(main())


def test_the_error_comes_even_if_the_awaited_swallows_the_cancellation() -> None:
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await _forever()
        return "not cancelled"

    async def body(began: asyncio.Event) -> str:
        child = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        began.set()
        return await child

    async def main() -> None:
        driven = await Driven.begun(body)
        driven.interrupt()
        with pytest.raises(SoftLimit):
            await driven.task

    asyncio.run(main())


def test_an_error_of_the_coroutine_comes_out() -> None:
    async def body() -> None:
        await asyncio.sleep(0)
        raise LookupError

    async def main() -> None:
        with pytest.raises(LookupError):
            await Driven(body()).task

    asyncio.run(main())


def test_the_coroutine_is_closed_when_its_driver_is_dropped() -> None:
    closed: list[bool] = []

    async def body() -> None:
        try:
            await _forever()
        finally:
            closed.append(True)

    async def main() -> None:
        steps = Interruptible(body()).__await__()
        next(steps)
        steps.close()

    asyncio.run(main())
    assert closed == [True]
