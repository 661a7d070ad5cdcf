"""Requests that are cancelled, wherever they are."""

from __future__ import annotations

import pytest

from inferq import RequestCancelled, UnknownRequest
from tests.cluster_harness import PREFIX, Cluster, frozen
from tests.faults.answers import check_answers, submit
from tests.faults.processes import Process


def ended_by(cluster: Cluster, node: Process) -> set[str]:
    """The requests that the engine of a node has no more."""
    return {
        entry.request_id
        for entry in cluster.journal()
        if entry.pid == node.pid and entry.what in ("abort", "end")
    }


def test_a_waiting_request_that_was_cancelled_is_never_started(cluster: Cluster) -> None:
    cluster.start("a", slots=1)
    with cluster.client() as client:
        first, second, third = submit(client, "r", 3, tokens=30, pace_ms=20)
        assert second.cancel()
        with pytest.raises(RequestCancelled):
            second.result(timeout=60)
        check_answers([first, third], 30)
    assert set(cluster.starts()) == {"r-0", "r-2"}


def test_a_running_request_that_was_cancelled_leaves_its_engine(cluster: Cluster) -> None:
    (node,) = cluster.start("a", slots=1)
    with cluster.client() as client:
        handle = submit(client, "r", 1, tokens=5000, pace_ms=20)[0]
        stream = handle.stream()
        next(stream)
        assert handle.cancel()
        cluster.wait(lambda: cluster.journal("abort"))
        cluster.wait(lambda: cluster.claims_of(node) == 0)
        # Its slot is free.
        check_answers(submit(client, "s", 2))
        with pytest.raises(RequestCancelled):
            list(stream)


def test_a_request_of_another_producer_can_be_cancelled(cluster: Cluster) -> None:
    (node,) = cluster.start("a", slots=1)
    with cluster.client() as owner, cluster.client() as operator:
        running, waiting = submit(owner, "r", 2, tokens=5000, pace_ms=20)
        cluster.wait(lambda: cluster.journal("start"))
        for handle in (waiting, running):
            assert operator.cancel(handle.request_id)
            with pytest.raises(RequestCancelled):
                handle.result(timeout=60)
        cluster.wait(lambda: cluster.claims_of(node) == 0 and cluster.waiting() == 0)
        with pytest.raises(UnknownRequest):
            operator.cancel("nobody")
    assert set(cluster.starts()) == {"r-0"}


def test_a_request_cancelled_on_a_stopped_node_is_not_started_elsewhere(
    hasty_cluster: Cluster,
) -> None:
    cluster = hasty_cluster
    (sleeper,) = cluster.start("a", slots=8)
    with cluster.client() as client:
        kept, cancelled = submit(client, "r", 2, tokens=100, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) == 2)
        claims = f"{PREFIX}claims:{cluster.incarnation(sleeper)}"
        with frozen(sleeper):
            assert cancelled.cancel()
            cluster.start("b", slots=8)
            cluster.wait(lambda: not cluster.redis.exists(claims))
            check_answers([kept], 100)
            assert cluster.starts()["r-1"] == 1
        with pytest.raises(RequestCancelled):
            cancelled.result(timeout=60)
        cluster.ready(sleeper)
        # It lets go of both, or has come to their ends before it learnt of its lapse.
        cluster.wait(lambda: ended_by(cluster, sleeper) == {"r-0", "r-1"})
