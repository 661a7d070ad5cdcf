"""Requests whose time passes, wherever they are, and machines that disagree about the time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from inferq import RequestExpired
from inferq.client import Handle
from tests.cluster_harness import PREFIX, Cluster
from tests.faults.answers import check_answers, requests, submit

Make = Callable[..., Cluster]


def assert_expires(handle: Handle) -> None:
    with pytest.raises(RequestExpired):
        handle.result(timeout=60)


def test_requests_expire_while_they_wait(make_cluster: Make) -> None:
    cluster = make_cluster(scheduler_ttl=1)
    with cluster.client() as client:
        for handle in submit(client, "r", 3):
            assert_expires(handle)
        # A node that comes later starts none of them.
        (node,) = cluster.start("a")
        check_answers(submit(client, "s", 3, tokens=5), 5)
        cluster.wait(lambda: cluster.waiting() == 0 and cluster.claims_of(node) == 0)
    assert set(cluster.starts()) == {"s-0", "s-1", "s-2"}


def test_requests_expire_while_they_run(make_cluster: Make) -> None:
    cluster = make_cluster(scheduler_ttl=1)
    (node,) = cluster.start("a")
    with cluster.client() as client:
        for handle in submit(client, "r", 3, tokens=1000, pace_ms=50):
            assert_expires(handle)
        cluster.wait(lambda: len(cluster.journal("abort")) == 3)
        cluster.wait(lambda: cluster.claims_of(node) == 0)
        check_answers(submit(client, "s", 3, tokens=5), 5)


def test_requests_that_expire_with_their_node_are_not_started_again(make_cluster: Make) -> None:
    cluster = make_cluster(scheduler_ttl=2, lease_s=2.0)
    victim, other = cluster.start("a", "b", slots=1)
    with cluster.client() as client:
        handles = submit(client, "r", 2, tokens=1000, pace_ms=50)
        cluster.wait(lambda: len(cluster.starts()) == 2)
        claims = f"{PREFIX}claims:{cluster.incarnation(victim)}"
        victim.kill()
        for handle in handles:
            assert_expires(handle)
        cluster.wait(lambda: not cluster.redis.exists(claims))
        cluster.wait(lambda: cluster.waiting() == 0 and cluster.claims_of(other) == 0)
    assert set(cluster.starts().values()) == {1}


@pytest.mark.parametrize("skew_s", [60, -60])
def test_the_clock_of_a_node_does_not_matter(make_cluster: Make, skew_s: int) -> None:
    cluster = make_cluster(scheduler_ttl=20)
    launcher = ("-m", "tests.faults.skewed_clock", str(skew_s))
    wrong, right = cluster.node("a", launcher=launcher, slots=4), cluster.node("b", slots=4)
    cluster.ready(wrong, right)
    with cluster.client() as client:
        # Much shorter and much longer than the clocks differ by.
        late = client.submit(**requests("late", 1, tokens=1000, pace_ms=50)[0] | deadline(2.0))
        handles = submit(client, "r", 30, tokens=20, pace_ms=10)
        check_answers(handles)
        for handle in handles:
            assert 0 <= handle.result().timings.queue_s < 20
        assert_expires(late)
    assert len({entry.pid for entry in cluster.journal("start")}) == 2
    assert set(cluster.starts().values()) == {1}


def test_a_node_with_a_wrong_clock_keeps_its_lease(make_cluster: Make) -> None:
    cluster = make_cluster()
    launcher = ("-m", "tests.faults.skewed_clock", "-60")
    wrong, right = cluster.node("a", launcher=launcher, slots=4), cluster.node("b", slots=4)
    cluster.ready(wrong, right)
    before = [cluster.incarnation(wrong), cluster.incarnation(right)]
    with cluster.client() as client:
        check_answers(submit(client, "r", 8, tokens=200, pace_ms=20), 200)
    assert [cluster.incarnation(wrong), cluster.incarnation(right)] == before


def deadline(after_s: float) -> dict[str, float]:
    """A field of a request."""
    return {"deadline": time.time() + after_s}
