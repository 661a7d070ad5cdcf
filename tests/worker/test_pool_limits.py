"""Time limits, revocation and events of tasks in the async pool."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery.events import EventReceiver
from celery.exceptions import TaskRevokedError

from tests.support import LONG_S, wait_until
from tests.worker.pool_harness import Harness

#: Soon over, yet long enough for a task to begin waiting.
LIMIT_S = 0.05


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


def test_a_soft_limit_arrives_inside_the_coroutine(harness: Harness) -> None:
    async def overstay() -> None:
        try:
            await harness.stage.gate()
        except SoftTimeLimitExceeded:
            harness.stage.report("late")
            raise

    task = harness.task(overstay, soft_time_limit=LIMIT_S)
    harness.start()
    result = task.delay()
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=LONG_S)
    assert harness.stage.seen == ["late"]
    assert result.state == "FAILURE"
    wait_until(lambda: harness.broker.claims() == 0)


def test_a_task_may_catch_its_soft_limit_and_finish(harness: Harness) -> None:
    async def overstay() -> str:
        try:
            await harness.stage.gate()
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0)
        return "in order"

    task = harness.task(overstay, soft_time_limit=LIMIT_S, time_limit=LONG_S)
    harness.start()
    result = task.delay()
    assert result.get(timeout=LONG_S) == "in order"
    assert result.state == "SUCCESS"


def test_a_soft_limit_of_one_task_leaves_the_others(harness: Harness) -> None:
    async def hold(number: int) -> int:
        harness.stage.report(number)
        await harness.stage.gate()
        return number

    task = harness.task(hold)
    harness.start()
    patient = [task.delay(n) for n in range(10)]
    hasty = [task.apply_async((n,), soft_time_limit=LIMIT_S) for n in range(10)]
    for result in hasty:
        with pytest.raises(SoftTimeLimitExceeded):
            result.get(timeout=LONG_S)
    harness.open()
    assert [result.get(timeout=LONG_S) for result in patient] == list(range(10))


def test_a_hard_limit_cancels_the_task(harness: Harness) -> None:
    async def overstay() -> None:
        try:
            await harness.stage.gate()
        except asyncio.CancelledError:
            harness.stage.report("cancelled")
            raise

    task = harness.task(overstay, time_limit=LIMIT_S)
    harness.start()
    result = task.delay()
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=LONG_S)
    assert result.state == "FAILURE"
    assert harness.stage.wait_for(1) == ["cancelled"]
    wait_until(lambda: harness.broker.claims() == 0)
    assert harness.broker.size("celery") == 0


def test_a_hard_limit_follows_a_soft_one_that_was_caught(harness: Harness) -> None:
    async def overstay() -> None:
        try:
            await harness.stage.gate()
        except SoftTimeLimitExceeded:
            harness.stage.report("soft")
        try:
            await harness.stage.gate()
        except asyncio.CancelledError:
            harness.stage.report("hard")
            raise

    task = harness.task(overstay, soft_time_limit=LIMIT_S, time_limit=2 * LIMIT_S)
    harness.start()
    with pytest.raises(TimeLimitExceeded):
        task.delay().get(timeout=LONG_S)
    assert harness.stage.wait_for(2) == ["soft", "hard"]


def test_a_revoked_task_that_runs_is_cancelled(harness: Harness) -> None:
    async def hold(number: int) -> int:
        harness.stage.report(number)
        try:
            await harness.stage.gate()
        except asyncio.CancelledError:
            harness.stage.report("cancelled")
            raise
        return number

    task = harness.task(hold)
    harness.start()
    first, second = task.delay(1), task.delay(2)
    harness.stage.wait_for(2)
    harness.app.control.revoke(first.id, terminate=True)
    assert harness.stage.wait_for(3) == [1, 2, "cancelled"]
    with pytest.raises(TaskRevokedError):
        first.get(timeout=LONG_S)
    assert first.state == "REVOKED"
    harness.open()
    assert second.get(timeout=LONG_S) == 2
    wait_until(lambda: harness.broker.claims() == 0)
    assert harness.broker.size("celery") == 0


def test_the_pool_can_stop_a_task_by_its_id(harness: Harness) -> None:
    async def hold() -> None:
        harness.stage.report("here")
        await harness.stage.gate()

    task = harness.task(hold)
    harness.start()
    result = task.delay()
    harness.stage.wait_for(1)
    assert harness.pool.terminate_task(result.id)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=LONG_S)
    wait_until(lambda: harness.pool.info["running-tasks"] == 0)
    assert not harness.pool.terminate_task(result.id)


@pytest.mark.parametrize("terminate", [False, True])
def test_a_task_revoked_before_it_was_taken_never_begins(harness: Harness, terminate: bool) -> None:
    async def note(number: int) -> None:
        harness.stage.report(number)

    task = harness.task(note)
    harness.start()
    # Known to the worker before the task is: broadcasts come in order of their own queue.
    harness.app.control.revoke("revoked-early", terminate=terminate)
    assert harness.app.control.ping(timeout=LONG_S, limit=1)
    result = task.apply_async((1,), task_id="revoked-early")
    with pytest.raises(TaskRevokedError):
        result.get(timeout=LONG_S)
    assert task.delay(2).get(timeout=LONG_S) is None
    assert harness.stage.seen == [2]


def test_a_task_terminated_while_it_waits_for_the_pool_never_begins() -> None:
    harness = Harness(limit=1)

    async def hold(number: int) -> None:
        harness.stage.report(number)
        await harness.stage.gate()

    task = harness.task(hold)
    try:
        harness.start()
        results = [task.delay(n) for n in range(3)]
        wait_until(lambda: harness.pool.info["waiting-tasks"] == 2)
        harness.app.control.revoke(results[1].id, terminate=True)
        assert harness.app.control.ping(timeout=LONG_S, limit=1)
        harness.open()
        with pytest.raises(TaskRevokedError):
            results[1].get(timeout=LONG_S)
        results[2].get(timeout=LONG_S)
        assert harness.stage.seen == [0, 2]
    finally:
        harness.close()


class Events:
    """Collects the worker's events in a thread, by task."""

    def __init__(self, harness: Harness) -> None:
        self._by_id: dict[str, list[dict[str, Any]]] = {}
        self._changed = threading.Condition()
        self._connection = harness.app.connection_for_read()
        self._receiver: EventReceiver = harness.app.events.Receiver(
            self._connection, handlers={"*": self._on_event}
        )
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(LONG_S)
        self._broker = harness.broker

    def of(self, task_id: str, last: str) -> list[dict[str, Any]]:
        """The events of a task up to its last."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: any(e["type"] == last for e in self._by_id.get(task_id, ())), LONG_S
            ), self._by_id
            return list(self._by_id[task_id])

    def close(self) -> None:
        self._receiver.should_stop = True
        self._broker.wake()
        self._thread.join(LONG_S)
        self._connection.close()

    def _run(self, ready: threading.Event) -> None:
        with self._receiver.consumer_context(wakeup=False) as (connection, _, _):
            ready.set()
            while not self._receiver.should_stop:
                try:
                    connection.drain_events(timeout=LONG_S)
                except TimeoutError:
                    continue

    def _on_event(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._by_id.setdefault(event.get("uuid", ""), []).append(event)
            self._changed.notify_all()


def test_events_tell_the_life_of_every_task(harness: Harness) -> None:
    async def succeed() -> str:
        return "value"

    async def fail() -> None:
        raise LookupError("told")

    async def hold() -> None:
        harness.stage.report("here")
        await harness.stage.gate()

    succeeding, failing, holding = (harness.task(f) for f in (succeed, fail, hold))
    harness.start()
    events = Events(harness)
    try:
        begun = ["task-received", "task-started"]

        told = events.of(succeeding.delay().id, "task-succeeded")
        assert [event["type"] for event in told] == [*begun, "task-succeeded"]
        assert told[-1]["result"] == "'value'"
        assert told[-1]["runtime"] >= 0

        told = events.of(failing.delay().id, "task-failed")
        assert [event["type"] for event in told] == [*begun, "task-failed"]
        assert told[-1]["exception"] == "LookupError('told')"

        revoked = holding.delay()
        harness.stage.wait_for(1)
        harness.app.control.revoke(revoked.id, terminate=True)
        told = events.of(revoked.id, "task-revoked")
        assert [event["type"] for event in told] == [*begun, "task-revoked"]
        assert told[-1]["terminated"] is True
    finally:
        events.close()
