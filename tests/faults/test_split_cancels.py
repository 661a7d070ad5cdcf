"""Requests that are cancelled in each phase: both sides let go of all that they held for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inferq import Client, RequestCancelled
from inferq.client import Handle
from tests.cluster_harness import QUEUE, Cluster, free_port
from tests.faults.answers import check_answers, submit
from tests.faults.phases import check_balanced, wait_at, wait_queued_for_decode
from tests.faults.processes import Process
from tests.proxy import Proxy

Make = Callable[..., Cluster]
COUNT = 6
FOREVER_MS = 600_000


@pytest.fixture
def cluster(make_split: Make) -> Cluster:
    return make_split()


def cancel_all(handles: list[Handle]) -> None:
    """Cancel; each caller hears of it."""
    for handle in handles:
        assert handle.cancel()
    for handle in handles:
        with pytest.raises(RequestCancelled):
            handle.result(timeout=60)


def check_free(cluster: Cluster, client: Client, *nodes: Process) -> None:
    """Nothing is left, and others are served."""
    check_balanced(cluster, *nodes)
    cluster.check_clean(*nodes)
    assert not cluster.journal("end")
    check_answers(submit(client, "after", COUNT))
    cluster.check_clean(*nodes)


def test_while_they_wait_for_a_prefill_node(cluster: Cluster) -> None:
    with cluster.client() as client:
        handles = submit(client, "r", COUNT)
        cluster.wait(lambda: cluster.waiting_anywhere(QUEUE) == COUNT)
        cancel_all(handles)
        nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
        cluster.wait(lambda: cluster.waiting_anywhere(QUEUE) == 0)
        assert not cluster.journal()
        check_free(cluster, client, *nodes)


def test_while_their_prompt_is_computed(cluster: Cluster) -> None:
    nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", COUNT, prefill_ms=FOREVER_MS)
        wait_at(cluster, nodes[0], "prefill", COUNT)
        if cluster.family == "concurrent":
            wait_at(cluster, nodes[1], "decode", COUNT)
        cancel_all(handles)
        check_free(cluster, client, *nodes)


def test_while_their_kv_cache_leaves(cluster: Cluster) -> None:
    nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", COUNT, export_ms=10_000)
        streams = [handle.stream() for handle in handles]
        for stream in streams:
            next(stream)
        cancel_all(handles)
        check_free(cluster, client, *nodes)


def test_while_nobody_has_room_to_decode_them(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill")
    with cluster.client() as client:
        handles = submit(client, "r", COUNT)
        wait_queued_for_decode(cluster, COUNT)
        cancel_all(handles)
        # The KV caches go before anybody comes for them.
        cluster.wait(lambda: cluster.is_empty(prefiller))
        check_balanced(cluster, prefiller)
        (decoder,) = cluster.start("d", role="decode")
        check_free(cluster, client, prefiller, decoder)


def test_while_they_are_decoded(cluster: Cluster) -> None:
    nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", COUNT, tokens=5000, pace_ms=20)
        streams = [handle.stream() for handle in handles]
        for stream in streams:
            assert len([next(stream) for _ in range(3)]) == 3
        cancel_all(handles)
        check_free(cluster, client, *nodes)


def test_while_mixed_nodes_compute_them(cluster: Cluster) -> None:
    nodes = cluster.start("p", role="prefill") + cluster.start("m1", "m2")
    with cluster.client() as client:
        handles = submit(client, "r", 30, tokens=5000, pace_ms=20, prefill_ms=300)
        wait_at(cluster, nodes[0], "handed", 1)
        cancel_all(handles)
        check_free(cluster, client, *nodes)


def test_while_their_kv_cache_arrives(make_cluster: Make) -> None:
    cluster = make_cluster(scheduler_name="splitwise", transfer={"timeout_s": 20.0})
    port = free_port()
    with Proxy(port) as proxy:
        listen = {"listen": f"127.0.0.1:{port}", "advertise": f"127.0.0.1:{proxy.port}"}
        nodes = [
            *cluster.start("p", role="prefill", protocols="tcp", transfer=listen),
            *cluster.start("d", role="decode"),
        ]
        with cluster.client() as client:
            proxy.freeze()
            handles = submit(client, "r", COUNT, kv_kib=512)
            cluster.wait(lambda: proxy.connections == COUNT)
            cancel_all(handles)
            proxy.mend()
            cluster.wait(lambda: proxy.connections == 0)
            check_free(cluster, client, *nodes)
        for process in cluster.processes:
            process.kill()


def test_at_any_moment(cluster: Cluster) -> None:
    nodes = cluster.start("p", role="prefill", slots=8) + cluster.start("d", role="decode", slots=8)
    with cluster.client() as client:
        kept: list[Handle] = []
        cancelled: list[Handle] = []
        for n in range(60):
            handle = submit(client, f"r{n}", 1, prefill_ms=100, export_ms=50, tokens=15)[0]
            (kept if n % 2 else cancelled).append(handle)
            if n >= 12 and n % 2 == 0:
                cancelled[(n - 12) // 2].cancel()
        check_answers(kept, 15)
        for handle in cancelled[24:]:
            handle.cancel()
        ended = [handle for handle in cancelled if not _was_cancelled(handle)]
        check_answers(ended, 15)
    check_balanced(cluster, *nodes)
    cluster.check_clean(*nodes)


def _was_cancelled(handle: Handle) -> bool:
    try:
        handle.result(timeout=60)
    except RequestCancelled:
        return True
    return False
