"""Nodes that are killed without a word: what they had runs elsewhere, once, from where it was."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from inferq import RequestFailed
from tests.cluster_harness import LEASE_S, PREFIX, SHORT_LEASE_S, Cluster
from tests.faults.answers import check_answers, submit
from tests.faults.engine import POISON
from tests.faults.processes import Process


def running_on(cluster: Cluster, node: Process) -> int:
    """How many requests the engine of a node has begun and not ended."""
    begun, ended = (
        sum(entry.pid == node.pid for entry in cluster.journal(what)) for what in ("start", "end")
    )
    return begun - ended


def test_requests_of_a_killed_node_end_elsewhere(hasty_cluster: Cluster) -> None:
    cluster = hasty_cluster
    victim, _ = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 40, pace_ms=25)
        cluster.wait(lambda: any(entry.pid == victim.pid for entry in cluster.journal("end")))
        cluster.wait(lambda: running_on(cluster, victim) > 4)
        victim.kill()
        check_answers(handles)
    starts = cluster.starts()
    assert len(starts) == 40
    assert max(starts.values()) > 1, "nothing had to be started again"
    assert cluster.dead() == []


def test_requests_that_wait_in_the_queue_of_a_killed_node_run_elsewhere(
    make_cluster: Callable[..., Cluster],
) -> None:
    # Nobody steals here.
    cluster = make_cluster(
        lease_s=SHORT_LEASE_S, scheduler_min_load_score=1e6, cluster={"steal_after_s": 1e6}
    )
    victim, _ = cluster.start("a", "b", slots=2)
    with cluster.client(node=victim.name) as client:
        handles = submit(client, "r", 20, tokens=3, pace_ms=60)
        cluster.wait(lambda: cluster.claims_of(victim) == 2)
        victim.kill()
        check_answers(handles, 3)
    assert len(cluster.starts()) == 20


@pytest.mark.slow
def test_recovery_takes_at_most_two_leases(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(lease_s=LEASE_S)
    victim, other = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 16, tokens=120, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) >= 16)
        claims = f"{PREFIX}claims:{cluster.incarnation(victim)}"
        assert cluster.redis.hlen(claims) == 8
        victim.kill()
        killed_at = time.monotonic()
        cluster.wait(lambda: not cluster.redis.exists(claims))
        # A second more than promised: this machine may be busy.
        assert time.monotonic() - killed_at < 2 * LEASE_S + 1
        check_answers(handles, 120)
    assert other.is_alive


def test_new_nodes_finish_what_killed_ones_left_when_all_were_killed(
    hasty_cluster: Cluster,
) -> None:
    cluster = hasty_cluster
    nodes = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 40, pace_ms=25)
        cluster.wait(lambda: len(cluster.starts()) >= 20)
        for node in nodes:
            node.kill()
        cluster.start("c", slots=40)
        check_answers(handles)


def test_a_killed_node_starts_again_under_its_name(hasty_cluster: Cluster) -> None:
    cluster = hasty_cluster
    (node,) = cluster.start("a", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 8, tokens=50, pace_ms=25)
        cluster.wait(lambda: cluster.claims_of(node) == 8)
        before = cluster.incarnation(node)
        node.kill()
        (again,) = cluster.start("a", slots=8)
        assert cluster.incarnation(again) != before
        check_answers(handles, 50)


def test_a_node_killed_after_it_stole_loses_nothing(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(lease_s=SHORT_LEASE_S, scheduler_min_load_score=1)
    owner, thief = cluster.start("a", "b", slots=4)
    with cluster.client(node=owner.name) as client:
        handles = submit(client, "r", 24, pace_ms=25)
        cluster.wait(lambda: any(entry.pid == thief.pid for entry in cluster.journal("start")))
        thief.kill()
        check_answers(handles)
    assert int(cluster.redis.hget(f"{PREFIX}stolen", owner.name) or 0) >= 1


def test_a_request_that_kills_its_nodes_is_given_up(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(lease_s=SHORT_LEASE_S, cluster={"max_attempts": 2})
    nodes = cluster.start("a", "b", "c")
    with cluster.client() as client:
        poison = client.submit(prompt_token_ids=[POISON], max_tokens=3)
        with pytest.raises(RequestFailed) as failed:
            poison.result(timeout=60)
        assert failed.value.error_code == "attempts"
        assert [letter["reason"] for letter in cluster.dead()] == ["attempts"]
        assert sum(node.is_alive for node in nodes) == 1
        check_answers(submit(client, "r", 5))
