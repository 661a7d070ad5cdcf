"""One task on its way through the async pool."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded, Terminated

from inferq.worker.interrupt import Interruptible
from inferq.worker.tracer import Traced

logger = logging.getLogger(__name__)

#: A job that ignores its cancellation for this long is reported, seconds.
STUBBORN_AFTER_S = 10.0


class Callbacks(NamedTuple):
    """What Celery's request object wants to hear of its task."""

    accepted: Callable[[int, float], None] | None
    done: Callable[[Traced], None] | None
    failed: Callable[[ExceptionInfo], None] | None
    timed_out: Callable[[bool, float], None] | None


class Job:
    """Runs one task once, within its limits, and reports how it ended exactly once.

    Everything but ``terminate`` happens on the pool's event loop. Celery holds this object
    weakly; the pool holds it until it is done.
    """

    def __init__(
        self,
        start: Callable[[], Coroutine[Any, Any, Traced]],
        callbacks: Callbacks,
        loop: asyncio.AbstractEventLoop,
        task_id: str,
        soft_timeout_s: float | None,
        timeout_s: float | None,
    ) -> None:
        self.task_id = task_id
        self._start = start
        self._callbacks = callbacks
        self._loop = loop
        self._soft_timeout_s = soft_timeout_s
        self._timeout_s = timeout_s
        self._task: asyncio.Task[Any] | None = None
        self._driver: Interruptible | None = None
        self._signal: int | None = None
        self._reported = False

    def terminate(self, signum: int) -> None:
        """Stop the task; called by Celery, from any thread, when it is revoked or cancelled."""
        self._signal = signum  # from here on it does not begin any more
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)

    def abandon(self) -> None:
        """Stop the task and report nothing: its message stays unacknowledged."""
        self._reported = True
        if self._task is not None:
            self._cancel()

    def finish(self) -> None:
        """The task is done. One that was cancelled before its first step could not report."""
        self._report_terminated()

    def begin(self) -> asyncio.Task[Any]:
        """Start running; returns the task to wait for."""
        self._task = self._loop.create_task(self._run())
        return self._task

    async def _run(self) -> None:
        timers = self._set_timers()
        try:
            if self._callbacks.accepted is not None:
                self._callbacks.accepted(os.getpid(), time.monotonic())
            if self._signal is not None:  # terminated before it began
                self._report_terminated()
                return
            traced = await self._drive()
        except asyncio.CancelledError:
            self._report_terminated()
        except BaseException as exc:  # noqa: BLE001 - one task's SystemExit is not the pool's
            self._report_failed(exc)
        else:
            self._report_done(traced)
        finally:
            for timer in timers:
                timer.cancel()

    async def _drive(self) -> Traced:
        coroutine = self._start()
        if self._soft_timeout_s is None:
            return await coroutine
        self._driver = Interruptible(coroutine)
        traced: Traced = await self._driver
        return traced

    def _set_timers(self) -> list[asyncio.TimerHandle]:
        timers = []
        if self._soft_timeout_s is not None:
            timers.append(self._loop.call_later(self._soft_timeout_s, self._on_soft_timeout))
        if self._timeout_s is not None:
            timers.append(self._loop.call_later(self._timeout_s, self._on_hard_timeout))
        return timers

    def _on_soft_timeout(self) -> None:
        assert self._soft_timeout_s is not None
        if self._driver is None or self._task is None or self._reported:
            return
        if self._callbacks.timed_out is not None:
            self._callbacks.timed_out(True, self._soft_timeout_s)
        self._driver.interrupt(self._task, SoftTimeLimitExceeded())

    def _on_hard_timeout(self) -> None:
        assert self._timeout_s is not None
        if self._reported:
            return
        self._reported = True
        self._cancel()
        if self._callbacks.timed_out is not None:
            self._callbacks.timed_out(False, self._timeout_s)

    def _stop(self) -> None:
        if self._task is not None:
            self._cancel()

    def _cancel(self) -> None:
        assert self._task is not None
        if self._driver is not None:
            self._driver.withdraw()
        self._task.cancel()
        self._loop.call_later(STUBBORN_AFTER_S, self._complain)

    def _complain(self) -> None:
        if self._task is not None and not self._task.done():
            logger.error("a task ignores its cancellation: %r", self._task.get_coro())

    def _report_done(self, traced: Traced) -> None:
        if not self._reported:
            self._reported = True
            if self._callbacks.done is not None:
                self._callbacks.done(traced)

    def _report_terminated(self) -> None:
        self._report_failed(Terminated(self._signal or 0))

    def _report_failed(self, error: BaseException) -> None:
        if self._reported:
            return
        self._reported = True
        if self._callbacks.failed is None:
            return
        try:
            raise error
        except BaseException:  # noqa: BLE001 - ExceptionInfo reads the current exception
            self._callbacks.failed(ExceptionInfo())
