"""What becomes of tasks in the async pool: many at once, results, requests, states, followers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain
from celery.exceptions import Ignore, Reject

from inferq.worker.pool import AsyncPool
from tests.support import LONG_S, wait_until
from tests.worker.pool_harness import Harness


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


def test_hundreds_of_tasks_are_in_flight_at_once_and_acknowledged_at_their_end(
    harness: Harness,
) -> None:
    async def hold(number: int) -> int:
        harness.stage.report(number)
        await harness.stage.gate()
        return number

    task = harness.task(hold)
    harness.start()
    results = [task.delay(n) for n in range(400)]
    harness.stage.wait_for(400)
    assert harness.broker.claims() == 400
    assert harness.pool.info["running-tasks"] == 400
    harness.open()
    assert [result.get(timeout=LONG_S) for result in results] == list(range(400))
    wait_until(lambda: harness.broker.claims() == 0)
    assert harness.broker.size("celery") == 0


def test_tasks_begin_in_the_order_of_arrival(harness: Harness) -> None:
    async def note(number: int) -> None:
        harness.stage.report(number)

    task = harness.task(note)
    for number in range(300):
        task.delay(number)
    harness.start()
    assert harness.stage.wait_for(300) == list(range(300))


def test_the_limit_bounds_what_runs_and_the_rest_keeps_its_order() -> None:
    harness = Harness(limit=3)
    running: list[int] = []
    most: list[int] = []

    async def hold(number: int) -> None:
        running.append(number)
        most.append(len(running))
        harness.stage.report(number)
        await harness.stage.gate()
        await asyncio.sleep(0)
        running.remove(number)

    task = harness.task(hold)
    try:
        harness.start()
        results = [task.delay(n) for n in range(30)]
        wait_until(lambda: harness.pool.info["waiting-tasks"] == 27)
        wait_until(lambda: harness.stage.seen == [0, 1, 2])
        harness.open()
        for result in results:
            result.get(timeout=LONG_S)
        assert harness.stage.seen == list(range(30))
        assert max(most) == 3
    finally:
        harness.close()


def test_a_pool_that_grows_begins_waiting_tasks() -> None:
    harness = Harness(limit=1)

    async def hold(number: int) -> None:
        harness.stage.report(number)
        await harness.stage.gate()

    task = harness.task(hold)
    try:
        harness.start()
        for number in range(4):
            task.delay(number)
        harness.stage.wait_for(1)
        harness.pool.grow(2)
        assert harness.stage.wait_for(3) == [0, 1, 2]
        harness.pool.shrink(5)
        assert harness.pool.num_processes == 1
        harness.open()
        harness.stage.wait_for(4)
    finally:
        harness.close()


def test_a_failure_reaches_the_producer(harness: Harness) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("no such thing")

    task = harness.task(fail)
    harness.start()
    result = task.delay()
    with pytest.raises(LookupError, match="no such thing"):
        result.get(timeout=LONG_S)
    assert result.state == "FAILURE"
    assert "raise LookupError" in result.traceback
    wait_until(lambda: harness.broker.claims() == 0)


def test_a_task_that_exits_ends_alone(harness: Harness) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def add(a: int, b: int) -> int:
        return a + b

    leaving, adding = harness.task(leave), harness.task(add)
    harness.start()
    result = leaving.delay()
    with pytest.raises(Exception, match="exited prematurely"):
        result.get(timeout=LONG_S)
    assert adding.delay(1, 2).get(timeout=LONG_S) == 3


def test_every_coroutine_sees_its_own_request(harness: Harness) -> None:
    async def whoami(self: Any, number: int) -> list[str]:
        seen = [self.request.id]
        harness.stage.report(number)
        await harness.stage.gate()
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(self.request.id)
        seen.append(await asyncio.create_task(nested(self)))
        assert self.request.args == [number]
        return seen

    async def nested(self: Any) -> str:
        await asyncio.sleep(0)
        return str(self.request.id)

    task = harness.task(whoami, bind=True)
    harness.start()
    results = [task.delay(n) for n in range(50)]
    harness.stage.wait_for(50)
    harness.open()
    for result in results:
        assert set(result.get(timeout=LONG_S)) == {result.id}
    assert task.request.id is None


def test_plain_tasks_run_in_threads_beside_the_loop(harness: Harness) -> None:
    release = threading.Event()

    def block(self: Any) -> list[Any]:
        harness.stage.report("blocked")
        assert release.wait(LONG_S)
        return [self.request.id, threading.current_thread() is threading.main_thread()]

    async def quick() -> str:
        return threading.current_thread().name

    blocking, quickly = harness.task(block, bind=True), harness.task(quick)
    harness.start()
    blocked = [blocking.delay() for _ in range(2)]
    harness.stage.wait_for(2)
    assert quickly.delay().get(timeout=LONG_S) == "inferq-pool"
    release.set()
    assert [r.get(timeout=LONG_S) for r in blocked] == [[r.id, False] for r in blocked]
    wait_until(lambda: harness.broker.claims() == 0)


def test_a_plain_task_that_fails_says_so(harness: Harness) -> None:
    def fail() -> None:
        raise LookupError("plain")

    task = harness.task(fail)
    harness.start()
    with pytest.raises(LookupError, match="plain"):
        task.delay().get(timeout=LONG_S)


def test_a_retry_runs_the_task_again(harness: Harness) -> None:
    async def stumble(self: Any) -> int:
        harness.stage.report(self.request.retries)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    task = harness.task(stumble, bind=True, max_retries=3)
    harness.start()
    assert task.delay().get(timeout=LONG_S) == 2
    assert harness.stage.seen == [0, 1, 2]
    wait_until(lambda: harness.broker.claims() == 0)


def test_a_task_that_retries_too_often_fails(harness: Harness) -> None:
    async def stumble(self: Any) -> None:
        raise self.retry(exc=LookupError("at last"), countdown=0)

    task = harness.task(stumble, bind=True, max_retries=1)
    harness.start()
    with pytest.raises(LookupError, match="at last"):
        task.delay().get(timeout=LONG_S)


def test_an_ignored_task_is_acknowledged_and_has_no_state(harness: Harness) -> None:
    async def ignore() -> None:
        harness.stage.report("here")
        raise Ignore

    task = harness.task(ignore)
    harness.start()
    result = task.delay()
    harness.stage.wait_for(1)
    wait_until(lambda: harness.broker.claims() == 0)
    assert result.state == "PENDING"
    assert harness.broker.size("celery") == 0


def test_a_rejected_task_with_requeue_comes_again(harness: Harness) -> None:
    async def reject(self: Any) -> str:
        again = bool(self.request.delivery_info["redelivered"])
        harness.stage.report(again)
        if not again:
            raise Reject("later", requeue=True)
        return "done"

    task = harness.task(reject, bind=True)
    harness.start()
    assert task.delay().get(timeout=LONG_S) == "done"
    assert harness.stage.seen == [False, True]


def test_a_rejected_task_without_requeue_is_gone(harness: Harness) -> None:
    async def reject() -> None:
        harness.stage.report("here")
        raise Reject("never", requeue=False)

    task = harness.task(reject)
    harness.start()
    task.delay()
    harness.stage.wait_for(1)
    wait_until(lambda: harness.broker.claims() == 0)
    assert harness.broker.size("celery") == 0
    assert harness.stage.seen == ["here"]


def test_links_and_chains_run(harness: Harness) -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    async def note(value: Any) -> None:
        harness.stage.report(value)

    adding, noting = harness.task(add), harness.task(note)
    harness.start()
    chained = chain(adding.s(1, 2), adding.s(3), adding.s(4)).apply_async()
    assert chained.get(timeout=LONG_S) == 10
    adding.apply_async((5, 6), link=[noting.s(), noting.s()])
    assert harness.stage.wait_for(2) == [11, 11]


def test_an_errback_runs(harness: Harness) -> None:
    async def fail() -> None:
        raise LookupError("linked")

    async def note(task_id: str) -> None:
        harness.stage.report(task_id)

    failing, noting = harness.task(fail), harness.task(note)
    harness.start()
    result = failing.apply_async(link_error=noting.si("told"))
    with pytest.raises(LookupError):
        result.get(timeout=LONG_S)
    assert harness.stage.wait_for(1) == ["told"]


def test_a_warm_shutdown_finishes_what_was_taken(harness: Harness) -> None:
    async def hold(number: int) -> int:
        harness.stage.report(number)
        await harness.stage.gate()
        for _ in range(5):
            await asyncio.sleep(0)
        return number

    task = harness.task(hold)
    harness.start()
    results = [task.delay(n) for n in range(20)]
    harness.stage.wait_for(20)
    opening = threading.Timer(0.05, harness.open)
    opening.start()
    harness.stop()
    opening.join()
    assert [result.result for result in results] == list(range(20))
    assert harness.broker.claims() == 0


def test_a_cold_shutdown_cancels_and_returns_the_messages() -> None:
    harness = Harness(limit=5)

    async def hold(number: int) -> None:
        try:
            await harness.stage.gate()
        except asyncio.CancelledError:
            harness.stage.report(number)
            raise

    task = harness.task(hold)
    try:
        harness.start()
        results = [task.delay(n) for n in range(8)]
        wait_until(lambda: harness.pool.info["waiting-tasks"] == 3)
        harness.terminate()
        assert sorted(harness.stage.seen) == [0, 1, 2, 3, 4]
        assert {result.state for result in results} == {"PENDING"}
        assert harness.broker.claims() == 0
        assert harness.broker.size("celery") == 8
    finally:
        harness.close()


def test_a_pool_that_never_started_can_be_stopped() -> None:
    pool = AsyncPool(limit=2)
    pool.stop()
    assert pool.loop.is_closed()
