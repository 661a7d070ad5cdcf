"""What is seen of a topic from outside."""

from __future__ import annotations

import pytest

from inferq import Client, Settings
from inferq.cluster.view import NodeView, View
from tests.fake_node import FakeNode
from tests.redis_server import RedisServer


@pytest.fixture
def view(node: FakeNode) -> View:
    return View(node.topic)


def test_a_node_is_seen_with_what_it_says_and_what_it_holds(
    view: View, node: FakeNode, producer: Client, cluster: Settings
) -> None:
    producer.submit_many({"prompt": "p"} for _ in range(3))
    node.take_exactly(3)
    with Client(cluster, node=node.name) as beside:
        beside.submit_many([{"prompt": "p"}, {"prompt": "p", "priority": 9}])
        [seen] = view.nodes()
    assert (seen.name, seen.state, seen.live) == (node.name, "ready", True)
    assert (seen.queued, seen.claims, seen.load, seen.stolen) == (2, 3, 5, 0)
    assert (seen.role, seen.host, seen.engine) == ("mixed", "here", "fake")
    assert (seen.total_blocks, seen.free_slots, seen.block_size) == (100, 7, 64)
    assert seen.lease_s is not None
    assert 0 < seen.lease_s <= 600
    assert seen.seen_s is not None
    assert 0 <= seen.seen_s < 60


def test_queues_are_counted_over_all_priorities(view: View, producer: Client) -> None:
    producer.submit_many({"prompt": "p", "priority": n} for n in range(10))
    assert view.queue_lengths(["n1@here"]) == {"default.prefill": 10, "default.prefill.n1@here": 0}


def test_a_node_that_has_left_is_seen_without_a_lease(view: View, node: FakeNode) -> None:
    node.topic.set_state(node.name, node.inc, "gone")
    [seen] = view.nodes()
    assert (seen.state, seen.live, seen.lease_s, seen.claims) == ("gone", False, None, 0)


def test_an_empty_topic_has_no_nodes(server: RedisServer, cluster: Settings) -> None:
    with Client(cluster) as producer:
        counts = producer.counts()
    assert (counts.waiting, counts.running, counts.total_slots) == (0, 0, 0)


@pytest.mark.parametrize("record", ["", "no json", "[]", '{"total_blocks": "many", "role": 7}'])
def test_a_record_that_makes_no_sense_says_nothing(
    view: View, node: FakeNode, server: RedisServer, record: str
) -> None:
    with server.client() as redis:
        redis.hset("inferq:default:nodes", node.name, record)
    [seen] = view.nodes()
    assert (seen.total_blocks, seen.role) == (0, "")
    assert isinstance(seen, NodeView)
