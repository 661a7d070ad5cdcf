"""Signals that end the demo: noted where they come, obeyed where nothing can be left behind."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Notes signals instead of raising at once.

    An exception in the middle of starting a process would lose the process, and one that is
    raised while an object is finalised is dropped by Python: the signal would be lost.
    """

    def __init__(self) -> None:
        self._seen = False

    def install(self) -> None:
        """Note signals from now on; for the main thread."""
        for number in (signal.SIGINT, *ENDING):
            signal.signal(number, lambda *_: self._note())

    def check(self) -> None:
        """Raises KeyboardInterrupt when there was a signal."""
        if self._seen:
            raise KeyboardInterrupt

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, which is cancelled by a signal to end; Ctrl-C is its own to handle.

        Raises:
            KeyboardInterrupt: it was cancelled that way, or there was a signal before.
        """
        try:
            return asyncio.run(self._cancellable(work))
        except asyncio.CancelledError:
            self.check()
            raise
        finally:
            self.install()  # the loop has taken its handlers away

    async def _cancellable(self, work: Coroutine[Any, Any, T]) -> T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def end() -> None:
            self._note()
            task.cancel()

        for number in ENDING:
            loop.add_signal_handler(number, end)
        if self._seen:  # before the handlers were there
            task.cancel()
        return await task

    def _note(self) -> None:
        self._seen = True
