"""Prefill and decode nodes that stand still past their lease and go on as if no time had passed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster_harness import PREFIX, SHORT_LEASE_S, Cluster, frozen
from tests.faults.answers import check_answers, submit
from tests.faults.phases import at, check_balanced, wait_at, wait_queued_for_decode
from tests.faults.processes import Process

Make = Callable[..., Cluster]


@pytest.fixture
def cluster(make_split: Make) -> Cluster:
    return make_split(lease_s=SHORT_LEASE_S, transfer={"timeout_s": 0.5})


def wait_lapsed(cluster: Cluster, inc: str) -> None:
    """Wait until an incarnation has lost what it had claimed."""
    cluster.wait(lambda: not cluster.redis.exists(f"{PREFIX}claims:{inc}"))
    cluster.wait(lambda: cluster.redis.zscore(f"{PREFIX}leases", inc) is None)


def wait_back(cluster: Cluster, node: Process, inc: str) -> None:
    """Wait until a node has joined again."""
    cluster.wait(lambda: cluster.incarnation(node) not in ("", inc))
    cluster.ready(node)


@pytest.mark.parametrize("stage", ["computing", "leaving"])
def test_late_handoffs_of_a_prefill_node_are_refused(cluster: Cluster, stage: str) -> None:
    sleeper, other = cluster.start("p1", "p2", role="prefill", slots=4)
    (decoder,) = cluster.start("d", role="decode")
    shape = {"prefill_ms" if stage == "computing" else "export_ms": 2500}
    with cluster.client() as client:
        handles = submit(client, "r", 8, **shape)
        wait_at(cluster, sleeper, "prefill", 4)
        inc = cluster.incarnation(sleeper)
        with frozen(sleeper):
            wait_lapsed(cluster, inc)
        check_answers(handles)
        wait_back(cluster, sleeper, inc)
        assert max(cluster.starts("prefill").values()) > 1
        check_answers(submit(client, "s", 16))
    check_balanced(cluster, sleeper, other, decoder)
    cluster.check_clean(sleeper, other, decoder)


def test_late_outputs_of_a_decode_node_are_refused(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill")
    sleeper, other = cluster.start("d1", "d2", role="decode", slots=4)
    with cluster.client() as client:
        handles = submit(client, "r", 8, tokens=100, pace_ms=25)
        wait_at(cluster, sleeper, "fetch" if cluster.family == "concurrent" else "decode", 4)
        inc = cluster.incarnation(sleeper)
        with frozen(sleeper):
            wait_lapsed(cluster, inc)
        # It wakes with four requests half done, which run at the other one meanwhile.
        check_answers(handles, 100)
        wait_back(cluster, sleeper, inc)
        assert max(cluster.starts("prefill").values()) > 1
        check_answers(submit(client, "s", 16))
    check_balanced(cluster, prefiller, sleeper, other)
    cluster.check_clean(prefiller, sleeper, other)


def test_kv_caches_at_a_node_that_stands_still_are_made_again_elsewhere(cluster: Cluster) -> None:
    (sleeper,) = cluster.start("p1", role="prefill")
    with cluster.client() as client:
        handles = submit(client, "r", 6)
        wait_queued_for_decode(cluster, 6)
        inc = cluster.incarnation(sleeper)
        with frozen(sleeper):
            nodes = cluster.start("p2", role="prefill") + cluster.start("d", role="decode")
            check_answers(handles)
            wait_lapsed(cluster, inc)
        wait_back(cluster, sleeper, inc)
    assert all(not at(cluster, node, "decode") for node in nodes)
    # It frees what nobody has fetched.
    cluster.check_clean(sleeper, *nodes)


def test_a_stop_shorter_than_the_lease_costs_nothing(make_split: Make) -> None:
    cluster = make_split(lease_s=10.0)
    (prefiller,) = cluster.start("p", role="prefill")
    (decoder,) = cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", 6, tokens=60, pace_ms=20, prefill_ms=200)
        for node, what in ((prefiller, "prefill"), (decoder, "decode")):
            wait_at(cluster, node, what)
            with frozen(node):
                before = cluster.redis.time()[0]
                cluster.wait(lambda before=before: cluster.redis.time()[0] > before + 1)
        check_answers(handles, 60)
    assert set(cluster.starts("prefill").values()) == {1}
    assert set(cluster.starts("decode").values()) == {1}
    cluster.check_clean(prefiller, decoder)
