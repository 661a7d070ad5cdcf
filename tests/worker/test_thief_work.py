"""Requests over several nodes that steal from each other: each is answered, and only once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from inferq.messages import FinishReason, Output, Request
from inferq.results.memory import Store
from inferq.schedulers.publisher import Publisher
from tests.support import LONG_S, wait_until
from tests.worker.thief_harness import EmbeddedNode, Nodes, queue_of

ORIGIN = "the origin"
COUNT = 300
TOKENS = 5


class Collector:
    """The inbox of the origin: how often each request began and ended."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.reasons: set[str | None] = set()
        self._changed = threading.Condition()

    def deliver(self, output: Output) -> bool:
        with self._changed:
            self.begun[output.request_id] += output.index == 0
            self.ended[output.request_id] += output.finished
            if output.finished:
                self.reasons.add(output.finish_reason)
            self._changed.notify_all()
        return True

    def wait_for(self, count: int) -> None:
        """Wait until so many requests have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(+self.ended) >= count, LONG_S), self.ended


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.close()


@pytest.fixture
def collector(nodes: Nodes) -> Collector:
    collector = Collector()
    Store.named(nodes.name).inboxes[ORIGIN] = collector
    return collector


def start(nodes: Nodes, name: str) -> EmbeddedNode:
    """A node that computes 4 requests at once, in a hundredth of a second or two."""
    simulated: dict[str, Any] = {"speedup": 15, "max_slots": 4, "max_model_len": 4096}
    return nodes.start(name, engine="simulated", simulated=simulated)


def publish(nodes: Nodes, *names: str) -> None:
    """Put 300 requests into the queues of these nodes in turn."""
    publisher = Publisher(nodes.producer, ORIGIN)
    for number in range(COUNT):
        request = Request(
            request_id=f"r{number}", prompt_token_ids=(1, 2, 3), max_tokens=TOKENS, ignore_eos=True
        )
        publisher.publish(request, queue_of(names[number % len(names)]), 3)
    publisher.close()


def stolen(node: EmbeddedNode) -> int:
    """How many requests it has taken from others."""
    count: int = node.stats()["inferq_stolen"]
    return count


def test_three_nodes_share_the_work_of_one_and_answer_each_request_once(
    nodes: Nodes, collector: Collector
) -> None:
    owner, *thieves = (start(nodes, name) for name in ("owner", "b", "c"))
    publish(nodes, "owner")
    collector.wait_for(COUNT)
    assert len(collector.ended) == COUNT
    assert set(collector.ended.values()) == set(collector.begun.values()) == {1}
    assert collector.reasons == {FinishReason.LENGTH}
    assert all(stolen(thief) > 0 for thief in thieves)
    assert stolen(owner) == 0
    wait_until(lambda: nodes.broker.claims() == 0)


def test_nothing_is_lost_when_a_thief_and_an_owner_stop(nodes: Nodes, collector: Collector) -> None:
    last, owner, thief = (start(nodes, name) for name in ("last", "owner", "thief"))
    publish(nodes, "owner", "owner", "last")
    collector.wait_for(20)
    thief.worker.stop()
    collector.wait_for(40)
    owner.worker.stop()
    collector.wait_for(COUNT)
    assert len(collector.ended) == COUNT
    assert stolen(last) > 0
    wait_until(lambda: nodes.broker.claims() == 0)
