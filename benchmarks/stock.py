"""Stock Celery on ``memory://`` in this process: the baseline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.worker.worker import WorkController


class Baseline:
    """A no-op task behind a threads pool, and a count of its runs.

    With ``tuned`` the two settings that hold up ``memory://`` most are set as a patient user
    would set them; without, they are as shipped.
    """

    def __init__(self, *, tuned: bool) -> None:
        self.app = Celery("stock", broker="memory://", set_as_current=False)
        if tuned:
            self.app.conf.worker_prefetch_multiplier = 64
            # The transport sleeps between polls, by default for a second.
            self.app.conf.broker_transport_options = {"polling_interval": 0.0005}
        self.app.conf.update(
            task_ignore_result=True,
            task_acks_late=True,
            worker_pool="threads",
            worker_concurrency=2,
            worker_disable_rate_limits=True,
            broker_connection_retry_on_startup=True,
        )
        self._left = 0
        self._all_done = threading.Event()
        self._lock = threading.Lock()
        self.app.task(self._noop, name="noop", shared=False)

    def _noop(self, prompt_token_ids: list[int], max_tokens: int) -> None:
        del prompt_token_ids, max_tokens
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._all_done.set()

    def run(self, requests: int, prompt: list[int]) -> None:
        """Enqueue and run so many tasks."""
        self._left = requests
        self._all_done.clear()
        arguments = {"prompt_token_ids": prompt, "max_tokens": 1}
        for _ in range(requests):
            self.app.send_task("noop", kwargs=arguments)
        self._all_done.wait()


@contextmanager
def running(*, tuned: bool) -> Iterator[Baseline]:
    """A baseline with its worker running."""
    baseline = Baseline(tuned=tuned)
    baseline.app.set_default()
    ready = threading.Event()

    def on_ready(consumer: Any) -> None:
        del consumer
        ready.set()

    worker = WorkController(
        app=baseline.app,
        hostname="stock@localhost",
        loglevel="ERROR",
        ready_callback=on_ready,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    thread = threading.Thread(target=worker.start, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield baseline
    finally:
        worker.stop()
        thread.join(10)
