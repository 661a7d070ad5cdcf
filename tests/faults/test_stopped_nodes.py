"""Nodes that stand still past their lease and go on as if no time had passed."""

from __future__ import annotations

from tests.cluster_harness import PREFIX, Cluster, frozen
from tests.faults.answers import check_answers, submit


def test_what_a_node_writes_after_its_lease_is_refused_and_it_joins_again(
    cluster: Cluster,
) -> None:
    sleeper, other = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 16, tokens=40, pace_ms=25)
        cluster.wait(lambda: len(cluster.starts()) == 16)
        before = cluster.incarnation(sleeper)
        assert cluster.redis.hlen(f"{PREFIX}claims:{before}") == 8
        with frozen(sleeper):
            cluster.wait(lambda: not cluster.redis.exists(f"{PREFIX}claims:{before}"))
            cluster.wait(lambda: cluster.claims_of(other) == 8)
        # It wakes with eight requests half done, which run at the other one meanwhile.
        check_answers(handles, 40)
        assert max(cluster.starts().values()) == 2
        cluster.wait(lambda: cluster.incarnation(sleeper) not in ("", before))
        cluster.ready(sleeper)
        assert not cluster.redis.exists(f"{PREFIX}claims:{before}")
        # Both work.
        more = submit(client, "s", 16, tokens=40, pace_ms=25)
        cluster.wait(
            lambda: {e.pid for e in cluster.journal("start") if e.request_id.startswith("s")}
            == {sleeper.pid, other.pid}
        )
        check_answers(more, 40)


def test_a_lone_node_that_stood_still_past_its_lease_finishes_its_requests(
    cluster: Cluster,
) -> None:
    (sleeper,) = cluster.start("a", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 16, tokens=20, pace_ms=25)
        cluster.wait(lambda: len(cluster.starts()) == 8)
        with frozen(sleeper):
            # Nobody is there to notice.
            inc = f"{PREFIX}leases"
            score = cluster.redis.zscore(inc, cluster.incarnation(sleeper))
            cluster.wait(lambda: cluster.redis.time()[0] * 1000 > score + 1000)
        check_answers(handles)
    assert sleeper.is_alive


def test_a_message_handed_to_a_stopped_idle_node_is_not_stranded(cluster: Cluster) -> None:
    sleeper, _ = cluster.start("a", "b")
    cluster.wait(lambda: int(cluster.redis.info("clients")["blocked_clients"]) >= 4)
    with cluster.client() as client, frozen(sleeper):
        # Idle nodes wait inside Redis; it may hand a message to the one that does not wake up.
        for n in range(8):
            check_answers(submit(client, f"r{n}", 1))
