"""Producers that die, stand still, or use one another's names."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inferq import DuplicateRequest, RequestExpired
from tests.cluster_harness import PREFIX, Cluster, frozen
from tests.faults.answers import check_answers, requests, submit
from tests.faults.rows import check_producer, rows

MEGABYTE = 1_000_000


def test_what_a_killed_producer_wanted_is_given_up(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(cluster={"origin_ttl_s": 2.0})
    (node,) = cluster.start("a", slots=8)
    producer = cluster.producer(prefix="r", count=20, tokens=2000, pace_ms=10)
    cluster.wait(lambda: rows(producer, "output"))
    producer.kill()
    # Each would take 20 seconds: they end because nobody reads them.
    cluster.wait(lambda: cluster.claims_of(node) == 0 and cluster.waiting() == 0)
    assert not list(cluster.journal("end"))
    with cluster.client() as client:
        check_answers(submit(client, "s", 8))


def test_a_producer_that_starts_again_gets_its_new_requests_answered(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(cluster={"origin_ttl_s": 2.0})
    (node,) = cluster.start("a", slots=64)
    first = cluster.producer(name="first", prefix="r", count=20, tokens=100, pace_ms=20)
    cluster.wait(lambda: rows(first, "output"))
    first.kill()
    second = cluster.producer(name="second", prefix="s", count=20, tokens=10, pace_ms=5)
    cluster.wait(lambda: rows(second, "done") or not second.is_alive)
    check_producer(second, 20, 10)
    cluster.wait(lambda: cluster.claims_of(node) == 0)


def test_a_producer_that_stands_still_bounds_what_nodes_hold_for_it(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(
        scheduler_writer_batch_size=20,
        cluster={"max_stream_entries": 20, "origin_ttl_s": 60.0},
    )
    (node,) = cluster.start("a", slots=16)
    producer = cluster.producer(prefix="r", count=8, tokens=1500, pace_ms=0)
    cluster.wait(lambda: rows(producer, "output"))
    with frozen(producer):
        keys = list(cluster.redis.scan_iter(f"{PREFIX}out:*"))
        assert keys

        def is_full() -> bool:
            return all(int(cluster.redis.xlen(key)) >= 20 for key in keys)

        cluster.wait(is_full)
        before = node.memory_bytes()
        # Others are served meanwhile.
        with cluster.client() as client:
            check_answers(submit(client, "s", 20, tokens=50, pace_ms=10), 50)
        assert node.memory_bytes() - before < 30 * MEGABYTE
        assert all(int(cluster.redis.xlen(key)) <= 25 for key in keys)
    cluster.wait(lambda: rows(producer, "done") or not producer.is_alive)
    check_producer(producer, 8, 1500)
    assert set(cluster.starts().values()) == {1}


def test_one_id_belongs_to_one_producer_at_a_time(cluster: Cluster) -> None:
    cluster.start("a")
    with cluster.client() as first, cluster.client() as second:
        handles = submit(first, "r", 3, tokens=30)
        with pytest.raises(DuplicateRequest):
            second.submit_many([*requests("s", 2), *requests("r", 1)])
        # All or nothing.
        check_answers(handles, 30)
        check_answers(submit(second, "s", 2))
    assert set(cluster.starts().values()) == {1}


def test_a_client_that_closes_leaves_no_work_behind(cluster: Cluster) -> None:
    (node,) = cluster.start("a", slots=4)
    with cluster.client() as client:
        submit(client, "r", 12, tokens=2000)
        cluster.wait(lambda: len(cluster.starts()) >= 4)
    cluster.wait(lambda: cluster.claims_of(node) == 0 and cluster.waiting() == 0)
    cluster.wait(lambda: len(cluster.journal("abort")) == len(cluster.starts()))
    assert not cluster.journal("end")
    assert list(cluster.redis.scan_iter(f"{PREFIX}out:*")) == []


def test_requests_without_any_node_expire(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(scheduler_ttl=1)
    with cluster.client() as client, pytest.raises(RequestExpired):
        submit(client, "r", 1)[0].result(timeout=60)
