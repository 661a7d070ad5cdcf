"""Nodes that stand still past their lease and go on as if no time had passed."""

from __future__ import annotations

from tests.cluster_harness import PREFIX, Cluster, frozen
from tests.faults.answers import check_answers, submit


def test_what_a_node_writes_after_its_lease_is_refused_and_it_joins_again(
    hasty_cluster: Cluster,
) -> None:
    cluster = hasty_cluster
    sleeper, other = cluster.start("a", "b", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 16, tokens=100, pace_ms=25)
        cluster.wait(lambda: len(cluster.starts()) >= 16)
        before = cluster.incarnation(sleeper)
        assert cluster.redis.hlen(f"{PREFIX}claims:{before}") == 8
        with frozen(sleeper):
            cluster.wait(lambda: not cluster.redis.exists(f"{PREFIX}claims:{before}"))
            cluster.wait(lambda: cluster.claims_of(other) == 8)
        # It wakes with eight requests half done, which run at the other one meanwhile.
        check_answers(handles, 100)
        assert max(cluster.starts().values()) > 1
        cluster.wait(lambda: cluster.incarnation(sleeper) not in ("", before))
        cluster.ready(sleeper)
        assert not cluster.redis.exists(f"{PREFIX}claims:{before}")
        # Both work.
        more = submit(client, "s", 16, tokens=40, pace_ms=25)
        cluster.wait(
            lambda: (
                {e.pid for e in cluster.journal("start") if e.request_id.startswith("s")}
                == {sleeper.pid, other.pid}
            )
        )
        check_answers(more, 40)


def test_a_lone_node_that_stood_still_past_its_lease_finishes_its_requests(
    hasty_cluster: Cluster,
) -> None:
    cluster = hasty_cluster
    (sleeper,) = cluster.start("a", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 16, tokens=20, pace_ms=25)
        cluster.wait(lambda: len(cluster.starts()) >= 8)
        with frozen(sleeper):
            # Nobody is there to notice.
            inc = cluster.incarnation(sleeper)
            ends_ms = cluster.redis.zscore(f"{PREFIX}leases", inc) or 0.0
            cluster.wait(lambda: cluster.redis.time()[0] * 1000 > ends_ms + 1000)
        check_answers(handles)
    assert sleeper.is_alive


def test_a_message_handed_to_a_stopped_idle_node_is_not_stranded(hasty_cluster: Cluster) -> None:
    cluster = hasty_cluster
    sleeper, _ = cluster.start("a", "b")
    cluster.wait(lambda: int(cluster.redis.info("clients")["blocked_clients"]) >= 4)
    with cluster.client() as client, frozen(sleeper):
        # Idle nodes wait inside Redis; it may hand a message to the one that does not wake up.
        for n in range(8):
            check_answers(submit(client, f"r{n}", 1))


def test_a_node_whose_name_was_taken_meanwhile_does_no_harm(hasty_cluster: Cluster) -> None:
    cluster = hasty_cluster
    (sleeper,) = cluster.start("a", slots=8)
    with cluster.client() as client:
        handles = submit(client, "r", 8, tokens=60, pace_ms=25)
        cluster.wait(lambda: cluster.claims_of(sleeper) == 8)
        with frozen(sleeper):
            (heir,) = cluster.start("a", slots=8)
        check_answers(handles, 60)
        cluster.wait(lambda: "in use by another process" in sleeper.log())
        check_answers(submit(client, "s", 8))
        started = {e.pid for e in cluster.journal("start") if e.request_id.startswith("s")}
        assert started == {heir.pid}
        # It waits for the name, and gets it.
        heir.kill()
        check_answers(submit(client, "t", 8))
    assert sleeper.is_alive
