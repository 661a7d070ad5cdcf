"""Raises an exception inside a coroutine that another part of the program drives."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class Interruptible:
    """Drives a coroutine and turns a cancellation into an exception of choice.

    asyncio can only inject ``CancelledError`` into a task. A soft time limit must arrive as
    ``SoftTimeLimitExceeded``, which the coroutine may catch to finish in order.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._error: BaseException | None = None

    def interrupt(self, task: asyncio.Task[Any], error: BaseException) -> None:
        """Raise ``error`` at the coroutine's current await; ``task`` is the one driving it."""
        self._error = error
        task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        resume = coroutine.send
        value: Any = None
        try:
            while True:
                try:
                    awaited = resume(value)
                except StopIteration as stop:
                    return stop.value
                try:
                    value = yield awaited
                    resume = coroutine.send
                except asyncio.CancelledError as exc:
                    resume, value = coroutine.throw, self._take_error() or exc
        finally:
            coroutine.close()

    def _take_error(self) -> BaseException | None:
        error, self._error = self._error, None
        task = asyncio.current_task()
        if error is not None and task is not None:
            task.uncancel()  # the cancellation was only the carrier
        return error
