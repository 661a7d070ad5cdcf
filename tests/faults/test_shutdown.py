"""Nodes that are asked to stop, and names that are in use."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.cluster_harness import PREFIX, Cluster
from tests.faults.answers import check_answers, submit


def test_sigterm_finishes_what_runs_and_leaves_the_rest_to_others(cluster: Cluster) -> None:
    leaver, other = cluster.start("a", "b", slots=4, launcher=("-m", "celery"))
    with cluster.client() as client:
        handles = submit(client, "r", 24, tokens=40, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) >= 8)
        leaver.term()
        assert leaver.wait() == 0, leaver.tail()
        assert cluster.state_of(leaver) == "gone"
        check_answers(handles, 40)
    assert set(cluster.starts().values()) == {1}
    assert other.is_alive
    # It had left nothing to be recovered.
    assert not cluster.redis.exists(f"{PREFIX}claims:{cluster.incarnation(leaver)}")


def test_a_second_sigterm_hands_back_at_once(cluster: Cluster) -> None:
    (leaver,) = cluster.start("a", slots=4)
    with cluster.client() as client:
        handles = submit(client, "r", 8, tokens=500, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) >= 4)
        leaver.term()
        cluster.wait(lambda: cluster.state_of(leaver) == "draining")
        leaver.term()
        assert leaver.wait() == 0, leaver.tail()
        assert cluster.state_of(leaver) == "gone"
        assert cluster.waiting() == 8
        for handle in handles:
            assert not handle.done
            handle.cancel()


def test_what_was_handed_back_goes_on_at_another_node(cluster: Cluster) -> None:
    leaver, _ = cluster.start("a", "b", slots=4)
    with cluster.client() as client:
        handles = submit(client, "r", 8, tokens=80, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) >= 8)
        leaver.term()
        cluster.wait(lambda: cluster.state_of(leaver) == "draining")
        leaver.term()
        assert leaver.wait() == 0, leaver.tail()
        check_answers(handles, 80)
    assert sorted(cluster.starts().values()) == [1] * 4 + [2] * 4


def test_a_node_that_drains_hands_back_when_its_time_is_over(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(cluster={"drain_timeout_s": 0.5})
    (leaver,) = cluster.start("a", slots=4)
    with cluster.client() as client:
        handles = submit(client, "r", 4, tokens=80, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) >= 4)
        leaver.term()
        assert leaver.wait() == 0, leaver.tail()
        cluster.start("b")
        check_answers(handles, 80)


def test_sigquit_hands_back(cluster: Cluster) -> None:
    leaver, _ = cluster.start("a", "b", slots=4)
    with cluster.client() as client:
        handles = submit(client, "r", 8, tokens=80, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) >= 8)
        leaver.send(signal.SIGQUIT)
        leaver.wait()
        check_answers(handles, 80)


@pytest.mark.slow
def test_a_node_that_stops_while_redis_is_away_ends(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(cluster={"redis_timeout_s": 0.5}, durable=True)
    (leaver,) = cluster.start("a", slots=4)
    with cluster.client() as client:
        handles = submit(client, "r", 4, tokens=20, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) >= 4)
        cluster.server.kill()
        leaver.term()
        time.sleep(0.1)
        leaver.term()
        leaver.wait()
        cluster.server.start()
        cluster.start("b")
        check_answers(handles)


def test_a_name_in_use_is_refused(hasty_cluster: Cluster) -> None:
    cluster = hasty_cluster
    (node,) = cluster.start("a")
    second = cluster.node("a")
    assert second.wait() != 0
    assert "'a@test' is in use by another live worker" in second.log()
    assert node.is_alive
    with cluster.client() as client:
        check_answers(submit(client, "r", 4))
