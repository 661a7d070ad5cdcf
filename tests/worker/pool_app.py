"""The application of the worker processes in ``test_pool_processes``, on a stock broker."""

from __future__ import annotations

import asyncio
import os
import time

import redis
from celery import Celery

from inferq.worker.task import AsyncTask

#: Counts the tasks that have begun.
STARTED = "test:started"
#: Tasks wait until this key exists.
GATE = "test:gate"
#: How often the worker looks for it, seconds.
LOOK_EVERY_S = 0.02

URL = os.environ.get("POOL_APP_BROKER", "redis://127.0.0.1:0/0")

app = Celery("pool_app", broker=URL, backend=URL, task_cls=AsyncTask, set_as_current=False)
app.conf.update(
    worker_pool="inferq.worker.pool:AsyncPool",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    result_backend_thread_safe=True,
    # So that a worker says at once what it does, without waiting for others.
    worker_enable_remote_control=False,
)


class _Gate:
    """One look at the key for all tasks that wait."""

    def __init__(self) -> None:
        self._client = redis.Redis.from_url(URL)
        self._looked_at = 0.0
        self._is_open = False

    def start(self) -> None:
        self._client.incr(STARTED)

    def is_open(self) -> bool:
        if not self._is_open and time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._is_open = bool(self._client.exists(GATE))
            self._looked_at = time.monotonic()
        return self._is_open


_gate = _Gate()


@app.task(shared=False)  # type: ignore[untyped-decorator]
async def hold(number: int) -> int:
    """Wait for the gate, then return the number."""
    _gate.start()
    while not _gate.is_open():  # noqa: ASYNC110 - it opens in another process
        await asyncio.sleep(LOOK_EVERY_S)
    return number
