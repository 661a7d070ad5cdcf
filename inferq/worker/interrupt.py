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

    def withdraw(self) -> None:
        """Forget an error that was not raised yet: the next cancellation is a real one."""
        self._error = None

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
                error: BaseException | None = None
                try:
                    value = yield awaited
                except GeneratorExit:
                    raise
                except BaseException as exc:  # noqa: BLE001 - whatever the awaited raised
                    error = exc
                if error is None or isinstance(error, asyncio.CancelledError):
                    # Without an error the awaited has swallowed the cancellation.
                    error = self._take_error() or error
                resume = coroutine.send
                if error is not None:
                    resume, value = coroutine.throw, error
        finally:
            coroutine.close()

    def _take_error(self) -> BaseException | None:
        error, self._error = self._error, None
        task = asyncio.current_task()
        if error is not None and task is not None:
            task.uncancel()  # the cancellation was only the carrier
        return error
