"""One side has no node, or no room, or another role: requests wait, and none is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inferq import Client, RequestExpired
from tests.cluster_harness import QUEUE, Cluster
from tests.faults.answers import check_answers, requests, submit
from tests.faults.phases import Readers, check_balanced, wait_at, wait_queued_for_decode
from tests.faults.processes import Process

Make = Callable[..., Cluster]


@pytest.fixture
def cluster(make_split: Make) -> Cluster:
    return make_split()


def change_role(cluster: Cluster, client: Client, node: Process, role: str) -> None:
    """As an operator does: ``celery -A inferq control inferq_role``."""
    # It takes requests a moment before it hears commands.
    cluster.wait(lambda: f"{node.name} ready." in node.log())
    app: Any = client._session.scheduler.app
    [answer] = app.control.broadcast(
        "inferq_role", arguments={"role": role}, destination=[node.name], reply=True, timeout=30
    )
    assert answer == {node.name: {"ok": f"role is {role}"}}


def test_first_tokens_come_without_any_decode_node(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill", meet_s=60.0)
    with cluster.client() as client:
        readers = Readers(submit(client, "r", 6))
        readers.read(1)
        wait_queued_for_decode(cluster, 6)
        status = client.status("r-0")
        assert (status.state, status.phase) == ("queued", "decode")
        assert "decode" in status.reason
        (decoder,) = cluster.start("d", role="decode")
        readers.check()
    assert set(cluster.starts("prefill").values()) == {1}
    cluster.check_clean(prefiller, decoder)


def test_a_decode_pool_that_leaves_and_comes_back(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill", meet_s=60.0)
    decoders = cluster.start("d1", "d2", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", 12, tokens=50, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts("fetch")) >= 6)
        for node in decoders:
            node.term()
        more = submit(client, "s", 12)
        for node in decoders:
            assert node.wait() == 0
        nodes = cluster.start("d3", "d4", role="decode")
        check_answers(handles, 50)
        check_answers(more)
    if cluster.family == "sequential":  # they finished what they had, or left its KV cache alone
        assert set(cluster.starts("prefill").values()) == {1}
    check_balanced(cluster, prefiller, *nodes)
    cluster.check_clean(prefiller, *nodes)


def test_all_decode_nodes_are_full(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill", meet_s=60.0)
    decoders = cluster.start("d1", "d2", role="decode", slots=2)
    with cluster.client() as client:
        handles = submit(client, "r", 40, tokens=15, pace_ms=15)
        wait_queued_for_decode(cluster, 20)
        check_answers(handles, 15)
    assert set(cluster.starts("prefill").values()) == {1}
    assert {e.pid for e in cluster.journal("decode")} == {node.pid for node in decoders}
    cluster.check_clean(prefiller, *decoders)


def test_a_decode_node_without_enough_blocks_waits_for_some(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill", meet_s=60.0)
    (decoder,) = cluster.start("d", role="decode", blocks=12)
    with cluster.client() as client:
        # Each takes four blocks; the engine would refuse nothing, and count less than none.
        handles = submit(client, "r", 12, tokens=50, pace_ms=10)
        check_answers(handles, 50)
    assert set(cluster.starts("decode").values()) == {1}
    cluster.check_clean(prefiller, decoder)


def test_a_node_changes_its_role_under_load(cluster: Cluster) -> None:
    prefiller, decoder, third = (
        cluster.start(name, role=role, slots=8)[0]
        for name, role in (("p", "prefill"), ("d", "decode"), ("x", "prefill"))
    )
    with cluster.client() as client:
        handles = []
        for n, role in enumerate(("decode", "mixed", "prefill", "decode")):
            shape = {"tokens": 25, "pace_ms": 20, "prefill_ms": 150}
            handles += submit(client, f"r{n}", 30, **shape)
            before = len([e for e in cluster.journal() if e.pid == third.pid])
            change_role(cluster, client, third, role)
            cluster.wait(
                lambda before=before: (
                    len([e for e in cluster.journal() if e.pid == third.pid]) > before
                )
            )
        check_answers(handles, 25)
        cluster.wait(lambda: cluster.record(third)["role"] == "decode")
    assert {"prefill", "decode"} <= {e.what for e in cluster.journal() if e.pid == third.pid}
    check_balanced(cluster, prefiller, decoder, third)
    cluster.check_clean(prefiller, decoder, third)


def test_what_waits_for_a_node_goes_elsewhere_when_it_changes_its_role(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill", meet_s=60.0)
    (first,) = cluster.start("d1", role="decode", slots=1)
    with cluster.client() as client:
        [long] = submit(client, "long", 1, tokens=150, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts("fetch")) == 1)
        handles = submit(client, "r", 8)
        wait_queued_for_decode(cluster, 8)
        change_role(cluster, client, first, "prefill")
        (second,) = cluster.start("d2", role="decode")
        check_answers(handles)
        check_answers([long], 150)
    assert len({e.request_id for e in cluster.journal("decode") if e.pid == second.pid}) == 8
    cluster.check_clean(prefiller, first, second)


def test_time_is_over_while_nobody_decodes(make_split: Make) -> None:
    cluster = make_split(scheduler_ttl=3, cluster={"redis_timeout_s": 1.0})
    (prefiller,) = cluster.start("p", role="prefill", meet_s=60.0)
    with cluster.client() as client:
        readers = Readers(submit(client, "r", 4))
        readers.read(1)
        with pytest.raises(RequestExpired):
            readers.read(100)
        # Nobody has to come for the KV caches to go.
        cluster.wait(lambda: cluster.is_empty(prefiller))
        (decoder,) = cluster.start("d", role="decode")
        check_answers(submit(client, "s", 4))
    assert {e.request_id[0] for e in cluster.journal("decode")} == {"s"}
    check_balanced(cluster, prefiller, decoder)
    cluster.check_clean(prefiller, decoder)


def test_time_is_over_while_it_is_decoded(make_split: Make) -> None:
    cluster = make_split(scheduler_ttl=2)
    nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", 4, tokens=5000, pace_ms=20)
        wait_at(cluster, nodes[1], "fetch" if cluster.family == "concurrent" else "decode", 4)
        for handle in handles:
            with pytest.raises(RequestExpired):
                handle.result(timeout=60)
    check_balanced(cluster, *nodes)
    cluster.check_clean(*nodes)


def test_without_prefill_nodes_requests_wait(make_split: Make) -> None:
    cluster = make_split()
    (decoder,) = cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", 5)
        cluster.wait(lambda: cluster.waiting_anywhere(QUEUE) == 5)
        assert "prefill" in client.status("r-0").reason
        (prefiller,) = cluster.start("p", role="prefill")
        check_answers(handles)
        check_answers(client.submit_many(requests("s", 2)))
    cluster.check_clean(prefiller, decoder)
