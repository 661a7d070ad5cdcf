"""Redis loses its connections, stands still, or is killed: nodes live on and nothing is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from inferq import SchedulerUnavailable
from tests.cluster_harness import Cluster, frozen
from tests.faults.answers import check_answers, requests, submit
from tests.faults.processes import Process


def kill_connections(cluster: Cluster) -> None:
    """Redis drops every connection but the one that asks for it."""
    for kind in ("normal", "pubsub"):
        cluster.redis.client_kill_filter(_type=kind, skipme=True)


def assert_alive(cluster: Cluster, *nodes: Process) -> None:
    """The same processes are there and serve."""
    for node in nodes:
        assert node.is_alive, node.tail()
    cluster.ready(*nodes)


def test_lost_connections_neither_end_nor_repeat_what_runs(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster()
    nodes = cluster.start("a", "b", slots=16)
    with cluster.client() as client:
        handles = submit(client, "r", 60, tokens=40, pace_ms=20)
        for count in (10, 25, 40, 55):
            cluster.wait(lambda count=count: len(cluster.starts()) >= count)
            kill_connections(cluster)
        check_answers(handles, 40)
    assert_alive(cluster, *nodes)
    assert set(cluster.starts().values()) == {1}
    cluster.wait(lambda: sum(map(cluster.claims_of, nodes)) == 0)


def test_idle_nodes_and_producers_survive_lost_connections(cluster: Cluster) -> None:
    nodes = cluster.start("a", "b")
    with cluster.client() as client:
        for n in range(5):
            kill_connections(cluster)
            check_answers(submit(client, f"r{n}", 4, tokens=3), 3)
    assert_alive(cluster, *nodes)


@pytest.mark.slow
def test_a_redis_that_stands_still_for_longer_than_a_lease_loses_nothing(
    cluster: Cluster,
) -> None:
    nodes = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 30, tokens=40, pace_ms=25)
        cluster.wait(lambda: len(cluster.starts()) >= 16)
        with frozen(cluster.server):
            time.sleep(5.0)  # what is tested is that nothing happens meanwhile
        check_answers(handles, 40)
    assert_alive(cluster, *nodes)
    # Time in which nobody could renew a lease counts against nobody.
    assert set(cluster.starts().values()) == {1}


def test_a_redis_that_was_killed_goes_on_with_what_is_on_disk(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(durable=True)
    nodes = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 30, tokens=40, pace_ms=25)
        cluster.wait(lambda: len(cluster.starts()) >= 16)
        cluster.server.kill()
        time.sleep(random.uniform(0.0, 1.0))
        cluster.server.start()
        check_answers(handles, 40)
    assert_alive(cluster, *nodes)
    assert set(cluster.starts().values()) == {1}


@pytest.mark.slow
def test_nodes_are_back_soon_after_a_long_outage(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(durable=True)
    nodes = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        check_answers(submit(client, "r", 4, tokens=2), 2)
        cluster.server.kill()
        time.sleep(7.0)  # so long that pauses which grow have grown
        cluster.server.start()
        back_at = time.monotonic()
        check_answers(submit(client, "s", 16, tokens=2), 2)
        assert time.monotonic() - back_at < 4.0
    assert_alive(cluster, *nodes)


def test_a_redis_killed_again_and_again_loses_nothing(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(durable=True)
    nodes = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 100, tokens=20, pace_ms=10)
        for count in (10, 30, 50, 70):
            cluster.wait(lambda count=count: len(cluster.starts()) >= count)
            cluster.server.kill()
            cluster.server.start()
        check_answers(handles, 20)
    assert_alive(cluster, *nodes)


def test_a_redis_that_forgot_everything_is_joined_again(cluster: Cluster) -> None:
    (node,) = cluster.start("a")
    with cluster.client() as client:
        check_answers(submit(client, "r", 3))
        cluster.server.kill()
        cluster.server.start()
        cluster.wait(lambda: cluster.is_ready(node))
        check_answers(submit(client, "s", 3))
    assert node.is_alive


@pytest.mark.parametrize(
    ("refuse", "accept"),
    [
        ("CONFIG SET maxmemory 1000000", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ],
    ids=["it is full", "it became a replica"],
)
def test_a_redis_that_refuses_writes_for_a_while_loses_nothing(
    make_cluster: Callable[..., Cluster], refuse: str, accept: str
) -> None:
    cluster = make_cluster()
    nodes = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 40, tokens=40, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) >= 16)
        cluster.execute(refuse)
        time.sleep(1.0)
        cluster.execute(accept)
        check_answers(handles, 40)
    assert_alive(cluster, *nodes)
    assert set(cluster.starts().values()) == {1}


def test_a_submit_while_redis_is_away_is_safe_to_repeat(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(durable=True, cluster={"redis_timeout_s": 0.5})
    (node,) = cluster.start("a")
    with cluster.client() as client:
        cluster.server.kill()
        with pytest.raises(SchedulerUnavailable):
            client.submit_many(requests("r", 5))
        cluster.server.start()
        check_answers(client.submit_many(requests("r", 5)))
    assert set(cluster.starts().values()) == {1}
    assert_alive(cluster, node)


def test_a_submit_whose_answer_was_late_runs_once(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(cluster={"redis_timeout_s": 0.5})
    cluster.start("a")
    with cluster.client() as client:
        # Sent, and done once it thaws: but its producer does not know.
        with frozen(cluster.server), pytest.raises(SchedulerUnavailable):
            client.submit_many(requests("r", 5))
        check_answers(client.submit_many(requests("r", 5)))
    assert set(cluster.starts().values()) == {1}
