"""A Celery worker pool that runs tasks on one event loop, hundreds at a time.

Choose it with ``worker_pool = "inferq.worker.pool:AsyncPool"``. Tasks that are ``async def`` run
on the loop; plain ones run in threads, so that they do not hold up the others.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from celery.app.trace import trace_task_ret
from celery.concurrency.base import BasePool
from celery.worker import state

from inferq.worker.job import Callbacks, Job
from inferq.worker.tracer import Traced, trace

logger = logging.getLogger(__name__)
T = TypeVar("T")

SIGTERM = 15
#: How long a cold shutdown waits for cancelled tasks, seconds.
COLD_STOP_S = 5.0


class AsyncPool(BasePool):  # type: ignore[misc]
    """Runs at most ``limit`` tasks at once; more wait in order of arrival."""

    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="inferq-pool", daemon=True)
        self._arrived: deque[Job] = deque()
        self._flush_due = threading.Event()
        self._running: dict[asyncio.Task[Any], Job] = {}
        self._by_id: dict[str, Job] = {}
        self._idle = asyncio.Event()
        self._coroutine_tasks: dict[str, bool] = {}

    def on_start(self) -> None:
        """Start the event loop's thread."""
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the pool's loop and wait for its result, from another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function on the loop, after what it does at this moment; from any thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], None] | None = None,
        accept_callback: Callable[[int, float], None] | None = None,
        error_callback: Callable[[Any], None] | None = None,
        timeout_callback: Callable[[bool, float], None] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        correlation_id: str = "",
        **_: Any,
    ) -> Job:
        """Take a task from the consumer; called on the consumer's thread."""
        job = Job(
            self._starter(target, args, kwargs or {}),
            Callbacks(accept_callback, callback, error_callback, timeout_callback),
            self.loop,
            correlation_id,
            soft_timeout or self.options.get("soft_timeout"),
            timeout or self.options.get("timeout"),
        )
        self._by_id[job.task_id] = job
        self._arrived.append(job)
        # One wake-up for all that arrive until the loop gets to them, in their order.
        if not self._flush_due.is_set():
            self._flush_due.set()
            self.loop.call_soon_threadsafe(self._flush)
        return job

    def terminate_task(self, task_id: str) -> bool:
        """Stop the task of this id, from any thread; False when it is not here."""
        job = self._by_id.get(task_id)
        if job is None:
            return False
        job.terminate(SIGTERM)
        return True

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Nothing: Celery also calls the job's own ``terminate``, which knows which one."""

    def on_stop(self) -> None:
        """Warm shutdown: finish what was taken; Celery also calls this in a cold one."""
        if state.should_terminate in (None, False):
            self.drain()
        else:
            self.drop()
        self._stop_loop()

    def on_terminate(self) -> None:
        """Cold shutdown: cancel what runs, without acknowledging it."""
        self.drop()
        self._stop_loop()

    def drop(self) -> None:
        """Cancel all tasks; their messages stay unacknowledged and return to their queues."""
        if self._thread.is_alive():
            self.call(self._cancel_all())

    def drain(self) -> None:
        """Wait until no task is left."""
        if self._thread.is_alive():
            self.call(self._wait_idle())

    @property
    def num_processes(self) -> int:
        """Most tasks at once, which Celery multiplies into its prefetch count."""
        return int(self.limit or 1)

    def grow(self, n: int = 1) -> None:
        """Allow more tasks at once (``app.control.pool_grow``)."""
        self.limit = self.num_processes + n
        self.loop.call_soon_threadsafe(self._flush)

    def shrink(self, n: int = 1) -> None:
        """Allow fewer tasks at once; those that run go on."""
        self.limit = max(1, self.num_processes - n)

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "running-tasks": len(self._running),
            "waiting-tasks": len(self._arrived),
        }

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    def _stop_loop(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
        elif not self.loop.is_closed() and not self._thread.ident:
            self.loop.close()  # never started

    def _flush(self) -> None:
        self._flush_due.clear()  # before taking: who arrives later schedules another flush
        while self._arrived and len(self._running) < self.num_processes:
            job = self._arrived.popleft()
            task = job.begin()
            self._running[task] = job
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        job = self._running.pop(task)
        if self._by_id.get(job.task_id) is job:
            del self._by_id[job.task_id]
        job.finish()
        if not task.cancelled() and task.exception() is not None:
            logger.critical("a task ended outside of its tracer", exc_info=task.exception())
        if self._arrived:
            self._flush()
        if not self._running and not self._arrived:
            self._idle.set()

    async def _wait_idle(self) -> None:
        while self._running or self._arrived:
            self._idle.clear()
            await self._idle.wait()

    async def _cancel_all(self) -> None:
        self._arrived.clear()
        self._by_id.clear()
        for job in self._running.values():
            job.abandon()
        if self._running:
            _, stubborn = await asyncio.wait(list(self._running), timeout=COLD_STOP_S)
            if stubborn:
                logger.error("%d tasks did not stop", len(stubborn))

    def _starter(
        self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Coroutine[Any, Any, Traced]]:
        name = args[0] if args else ""
        if self._is_coroutine_task(name):
            _, task_id, request = args[:3]
            return lambda: self._trace(name, task_id, request)
        if target.__module__ == trace_task_ret.__module__:
            # fast_trace_task reads globals that know only one app a process.
            target, kwargs = trace_task_ret, {**kwargs, "app": self.app}
        return lambda: asyncio.to_thread(target, *args, **kwargs)

    def _trace(self, name: str, task_id: str, request: dict[str, Any]) -> Any:
        task = self.app.tasks[name]
        return trace(task, task_id, request, with_repr=self.with_repr)

    #: Whether results are to be described for events; the worker sets it when it sends any.
    with_repr = True

    def _is_coroutine_task(self, name: str) -> bool:
        known = self._coroutine_tasks.get(name)
        if known is None:
            task = self.app.tasks.get(name)
            known = task is not None and asyncio.iscoroutinefunction(task.run)
            self._coroutine_tasks[name] = known
        return known
