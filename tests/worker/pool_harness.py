"""A Celery worker with the async pool in a thread of the test, and a stage its tasks wait on."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.worker.worker import WorkController

from inferq.results.memory import Store
from inferq.transport import register_transports
from inferq.transport.broker import Broker
from inferq.worker.pool import AsyncPool
from tests.support import LONG_S

_numbers = itertools.count()


class Stage:
    """Where tasks report what they see, and wait until the test opens the gate."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._changed = threading.Condition()
        self._gate: asyncio.Event | None = None
        self._is_open = False

    def report(self, what: Any) -> None:
        """Say what happened; any thread may."""
        with self._changed:
            self.seen.append(what)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[Any]:
        """Wait until so much was reported; returns all of it."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= count, LONG_S), self.seen
            return list(self.seen)

    async def gate(self) -> None:
        """Wait, inside a task, until the gate opens."""
        if self._gate is None:
            self._gate = asyncio.Event()
        if not self._is_open:
            await self._gate.wait()

    def open(self) -> None:
        """Open the gate, on the loop of the tasks."""
        self._is_open = True
        if self._gate is not None:
            self._gate.set()


class Harness:
    """An application on a broker of its own, with one worker."""

    def __init__(self, *, limit: int = 1000, **conf: Any) -> None:
        register_transports()
        self.name = f"pool-{next(_numbers)}"
        self.url = f"inferq-memory://{self.name}"
        self.stage = Stage()
        self.app = Celery("pool", set_as_current=False, task_cls="inferq.worker.task:AsyncTask")
        self.app.conf.update(
            broker_url=self.url,
            result_backend=self.url,
            accept_content=["json"],
            task_acks_late=True,
            worker_pool="inferq.worker.pool:AsyncPool",
            worker_concurrency=limit,
            worker_prefetch_multiplier=0,
            worker_hijack_root_logger=False,
            result_backend_thread_safe=True,
            **conf,
        )
        self._controller: Any = None
        self._thread: threading.Thread | None = None

    @property
    def broker(self) -> Broker:
        """The broker that producer and worker share."""
        return Broker.named(self.name)

    @property
    def pool(self) -> AsyncPool:
        """The worker's pool."""
        pool: AsyncPool = self._controller.pool
        return pool

    def task(self, function: Callable[..., Any], **options: Any) -> Any:
        """Register a task, before the worker starts."""
        return self.app.task(name=f"{self.name}.{function.__name__}", shared=False, **options)(
            function
        )

    def start(self) -> None:
        """Start the worker and wait until it consumes."""
        ready = threading.Event()
        self._controller = WorkController(
            app=self.app,
            hostname=f"{self.name}@test",
            loglevel="WARNING",
            ready_callback=lambda consumer: ready.set(),
            use_eventloop=False,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            task_events=True,
        )
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        assert ready.wait(LONG_S)

    def open(self) -> None:
        """Let the tasks that wait at the gate go on."""
        self.pool.call_soon(self.stage.open)

    def stop(self) -> None:
        """Warm shutdown: returns when all tasks have ended."""
        self._end(self._controller.stop)

    def terminate(self) -> None:
        """Cold shutdown."""
        self._end(self._controller.terminate)

    def close(self) -> None:
        """Stop what still runs and forget broker and results."""
        if self._thread is not None:
            self.terminate()
        self.app.close()
        Broker.discard(self.name)
        Store.discard(self.name)

    def _run(self) -> None:
        try:
            self._controller.blueprint.start(self._controller)
        except Exception:
            # Its connection is closed by the thread that stops it, perhaps while it waits there.
            if self._thread is not None:
                raise

    def _end(self, shut_down: Callable[[], None]) -> None:
        thread, self._thread = self._thread, None
        assert thread is not None
        shut_down()
        self.broker.wake()
        thread.join(LONG_S)
        assert not thread.is_alive()
