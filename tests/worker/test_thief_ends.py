"""How a stolen request ends: answered, returned to where it came from, or revoked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from celery.events import EventReceiver
from celery.exceptions import Reject, TaskRevokedError
from celery.result import AsyncResult
from celery.worker import state

from tests.support import LONG_S, wait_until
from tests.worker.thief_harness import EmbeddedNode, Nodes


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.close()


@pytest.fixture
def owner(nodes: Nodes) -> EmbeddedNode:
    """It runs the task 0."""
    return nodes.start_busy("owner")


@pytest.fixture
def thief(nodes: Nodes, owner: EmbeddedNode) -> EmbeddedNode:
    return nodes.start("thief")


@pytest.fixture
def results(nodes: Nodes, owner: EmbeddedNode, thief: EmbeddedNode) -> list[AsyncResult]:
    """Of the tasks 1 to 4. The first of them was stolen, the others wait at their owner."""
    results = [nodes.send("owner", number) for number in range(1, 5)]
    assert thief.stage.wait_for(1) == [1]
    return results


def test_its_answer_arrives_and_its_message_is_gone(
    nodes: Nodes, thief: EmbeddedNode, results: list[AsyncResult]
) -> None:
    thief.open()
    assert results[0].get(timeout=LONG_S) == 1
    assert results[1].get(timeout=LONG_S) == 2
    wait_until(lambda: nodes.broker.claims() == 1)
    assert nodes.waiting("owner") == 2


def test_put_back_it_is_the_first_in_the_queue_of_its_owner(
    nodes: Nodes, owner: EmbeddedNode, thief: EmbeddedNode, results: list[AsyncResult]
) -> None:
    thief.ends[1] = Reject(requeue=True)
    thief.open()
    assert thief.stage.wait_for(3) == [1, 1, 2]
    assert results[0].get(timeout=LONG_S) == 1
    owner.open()
    assert owner.stage.wait_for(3) == [0, 3, 4]


def test_it_returns_to_its_place_when_the_thief_stops(
    nodes: Nodes, owner: EmbeddedNode, thief: EmbeddedNode, results: list[AsyncResult]
) -> None:
    thief.worker.stop()
    assert nodes.waiting("owner") == 4
    owner.open()
    assert owner.stage.wait_for(5) == [0, 1, 2, 3, 4]
    assert results[0].get(timeout=LONG_S) == 1


def test_it_can_be_revoked_while_the_thief_runs_it(
    nodes: Nodes, owner: EmbeddedNode, thief: EmbeddedNode, results: list[AsyncResult]
) -> None:
    nodes.producer.control.revoke(results[0].id, terminate=True)
    with pytest.raises(TaskRevokedError):
        results[0].get(timeout=LONG_S)
    assert thief.stage.wait_for(2) == [1, 2]
    owner.open()
    assert owner.stage.wait_for(3) == [0, 3, 4]


def test_revoked_while_it_waits_it_never_runs(
    nodes: Nodes, owner: EmbeddedNode, thief: EmbeddedNode
) -> None:
    first, _ = nodes.send("owner", 1), nodes.send("owner", 2)
    nodes.producer.control.revoke(first.id)
    wait_until(lambda: first.id in state.revoked)
    nodes.send("owner", 3)
    wait_until(lambda: nodes.waiting("owner") == 2)
    owner.open()
    assert owner.stage.wait_for(3) == [0, 2, 3]
    assert thief.stage.seen == []


def test_its_events_come_from_the_thief(
    nodes: Nodes, owner: EmbeddedNode, thief: EmbeddedNode
) -> None:
    seen: list[tuple[str, str]] = []

    def note(event: dict[str, Any]) -> None:
        seen.append((event["type"], event["hostname"]))

    with nodes.producer.connection_for_read() as connection:
        receiver = EventReceiver(
            connection, handlers={"task-received": note, "task-started": note}, app=nodes.producer
        )
        with receiver.consumer_context(wakeup=False) as (opened, _, _):
            for number in range(1, 5):
                nodes.send("owner", number)
            while len(seen) < 2:
                with suppress(TimeoutError):  # it was woken for something else
                    opened.drain_events(timeout=LONG_S)
    assert seen == [("task-received", "thief@test"), ("task-started", "thief@test")]
