"""What is seen of a topic from outside."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferq import Client, Settings
from inferq.cluster.link import Link
from inferq.cluster.topic import Topic
from inferq.cluster.view import NodeView, QueueView, View
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
    assert view.queue_lengths(["n1@here"]) == {
        "default.prefill": 10,
        "default.prefill.n1@here": 0,
        "default.decode": 0,
        "default.decode.n1@here": 0,
    }


def test_a_node_that_has_left_is_seen_without_a_lease(view: View, node: FakeNode) -> None:
    node.topic.set_state(node.name, node.inc, "gone")
    [seen] = view.nodes()
    assert (seen.state, seen.live, seen.lease_s, seen.claims) == ("gone", False, None, 0)


def test_an_empty_topic_has_no_nodes(server: RedisServer, cluster: Settings) -> None:
    with Client(cluster) as producer:
        counts = producer.counts()
    assert (counts.waiting, counts.running, counts.total_slots) == (0, 0, 0)


@pytest.mark.parametrize(
    "record",
    [
        "",
        "no json",
        "[]",
        '{"total_blocks": "many", "role": 7}',
        '{"total_blocks": -1, "tokens_per_s": NaN, "ttft_ms": {"a": 1}, "ended": [1], "pid": true}',
        '{"total_blocks": 1' + "0" * 400 + ', "tokens_per_s": 1e999, "ttft_ms": ["x", null]}',
        '{"name": "another", "state": "ready", "claims": 7, "live": true}',
        "[" * 15_000,
        '{"role": "mixed", "host": "' + "h" * 20_000 + '"}',
    ],
)
def test_a_record_that_makes_no_sense_says_nothing(
    view: View, node: FakeNode, server: RedisServer, record: str
) -> None:
    with server.client() as redis:
        redis.hset("inferq:default:nodes", node.name, record)
    [seen] = view.nodes()
    assert isinstance(seen, NodeView)
    said = (seen.total_blocks, seen.role, seen.tokens_per_s, seen.ttft_ms, seen.ended, seen.pid)
    assert said == (0, "", 0.0, (), {}, 0)
    assert (seen.name, seen.claims, seen.host) == (node.name, 0, "")


def say(server: RedisServer, name: str, **record: Any) -> None:
    """Have a node say something of itself."""
    with server.client() as redis:
        redis.hset("inferq:default:nodes", name, json.dumps(record))


def test_a_node_tells_its_numbers(view: View, node: FakeNode, server: RedisServer) -> None:
    say(
        server,
        node.name,
        role="decode",
        pid=7,
        running=3,
        kept_kv=1024,
        max_model_len=4096,
        tokens_per_s=12.5,
        prefill_tokens_per_s=100,
        ended={"stop": 4, "error": 1, "odd": "x"},
        ttft_ms=[1.5, 20],
        tpot_ms=[],
    )
    [seen] = view.nodes()
    assert (seen.role, seen.pid, seen.running, seen.kept_kv) == ("decode", 7, 3, 1024)
    assert (seen.tokens_per_s, seen.prefill_tokens_per_s) == (12.5, 100.0)
    assert (seen.ttft_ms, seen.tpot_ms) == ((1.5, 20.0), ())
    assert seen.ended == {"stop": 4, "error": 1}
    assert seen.longest == 1_000_000


def test_own_queues_are_told_by_phase_with_their_oldest(
    view: View, node: FakeNode, server: RedisServer, cluster: Settings
) -> None:
    with Client(cluster, node=node.name) as beside, server.client() as redis:
        beside.submit(prompt="p", priority=9)
        redis.lpush(f"default.decode.{node.name}", '{"body": ""}', '{"body": ""}')
        before = float(redis.time()[0])
        [seen] = view.nodes()
    assert (seen.queued, seen.queued_prefill, seen.queued_decode) == (3, 1, 2)
    assert seen.oldest_s is not None
    assert 0 <= seen.oldest_s < before


def test_the_age_of_a_queue_is_that_of_its_first_request(
    view: View, node: FakeNode, server: RedisServer
) -> None:
    with server.client() as redis:
        now_ms = int(redis.time()[0]) * 1000
        for age_s, step in ((500, ""), (900, "\x06\x169")):
            envelope = f'{{"inferq": [0, 0, 5, 5, {now_ms - age_s * 1000}, 0, "a"], "body": ""}}'
            redis.lpush(f"default.prefill.{node.name}{step}", envelope)
    [seen] = view.nodes()
    assert seen.oldest_s == pytest.approx(900, abs=60)
    [own] = [queue for queue in view.queues() if queue.node]
    assert own.oldest_s == pytest.approx(900, abs=60)


def test_steals_are_told_on_both_sides(view: View, node: FakeNode, server: RedisServer) -> None:
    with server.client() as redis:
        redis.hset("inferq:default:stolen", node.name, 5)
        redis.hset("inferq:default:stole", node.name, 6)
    [seen] = view.nodes()
    assert (seen.stolen, seen.stole) == (5, 6)


def test_the_shared_queues_are_told_by_priority(view: View, producer: Client) -> None:
    producer.submit_many({"prompt": "p", "priority": n} for n in (0, 0, 4, 9))
    prefill, decode = view.queues()
    assert prefill._replace(oldest_s=None) == QueueView(
        "default.prefill", "prefill", "", (2, 1, 0, 1), None
    )
    assert prefill.oldest_s is not None
    assert prefill.length == 4
    assert decode == QueueView("default.decode", "decode", "", (0, 0, 0, 0), None)


def test_the_queue_of_a_node_that_has_left_is_orphaned(
    view: View, node: FakeNode, server: RedisServer
) -> None:
    with server.client() as redis:
        redis.lpush(f"default.prefill.{node.name}", "{}")
        [own] = [queue for queue in view.queues() if queue.node]
        assert (own.node, own.orphaned) == (node.name, False)
        node.topic.set_state(node.name, node.inc, "gone")
        redis.lpush(f"default.decode.{node.name}\x06\x166", "{}")
        [own] = [queue for queue in view.queues() if queue.node]
    assert (own.node, own.phase, own.length, own.orphaned) == (node.name, "decode", 1, True)


def test_a_queue_that_no_known_node_owns_is_found_and_forgotten(
    view: View, server: RedisServer
) -> None:
    name = "a.b@c\x1b[31m"
    with server.client() as redis:
        redis.lpush(f"default.prefill.{name}\x06\x163", "{}", "\x00")
        redis.set("default.prefill.text", "no list")
        redis.lpush("another.prefill.node", "{}")
        redis.lpush("default.preface", "{}")
        [found] = [queue for queue in view.queues() if queue.node]
        assert (found.node, found.lengths, found.orphaned) == (name, (0, 2, 0, 0), True)
        assert found.oldest_s is None
        redis.delete(f"default.prefill.{name}\x06\x163")
    assert [queue for queue in view.queues() if queue.node] == []


def test_the_search_for_queues_goes_on_where_it_was(view: View, server: RedisServer) -> None:
    with server.client() as redis:
        with redis.pipeline() as pipe:
            for i in range(9_000):
                pipe.set(f"noise:{i}", "")
            pipe.execute()
        redis.lpush("default.prefill.lost@node", "{}")
    looks = [view.queues(most_keys=2_000) for _ in range(8)]
    assert [queue.node for queue in looks[-1] if queue.node] == ["lost@node"]


def test_hundreds_of_nodes_are_seen_with_few_calls(view: View, server: RedisServer) -> None:
    for i in range(300):
        say(server, f"n{i:03}", role="mixed", pid=i)
    with server.client() as redis:
        redis.lpush("default.decode.n299", "{}")
        before = redis.info("commandstats")
        assert [seen.pid for seen in view.nodes() if "@" not in seen.name] == [*range(300)]
        after = redis.info("commandstats")
        [own] = [queue for queue in view.queues() if queue.node]
    assert own.node == "n299"
    scripts = [
        sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
        for stats in (before, after)
    ]
    assert scripts[1] - scripts[0] <= 7


def test_a_key_of_another_kind_under_a_queues_name_does_no_harm(
    view: View, node: FakeNode, server: RedisServer, cluster: Settings
) -> None:
    with server.client() as redis:
        redis.set(f"default.prefill.{node.name}", "no list")
    [seen] = view.nodes()
    assert seen.queued == 0
    link = Link(cluster)
    assert len(View(Topic(cluster, link)).queues()) == 2
    link.close()


def test_without_the_right_to_search_the_known_queues_are_told(
    node: FakeNode, server: RedisServer
) -> None:
    with server.client() as redis:
        redis.execute_command("ACL", "SETUSER", "some", "on", ">word", "~*", "+@all", "-scan")
        redis.lpush("default.prefill.lost@node", "{}")
        redis.lpush(f"default.prefill.{node.name}", "{}")
    url = f"redis://some:word@127.0.0.1:{server.port}/0"
    settings = Settings(scheduler_name="global", scheduler_url=url)
    link = Link(settings)
    own = [queue.node for queue in View(Topic(settings, link)).queues() if queue.node]
    link.close()
    assert own == [node.name]
