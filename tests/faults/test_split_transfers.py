"""KV caches on their way: connections are lost, bytes change, and nobody has room for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster_harness import DECODE_QUEUE, Cluster, free_port
from tests.faults.answers import check_answers, submit
from tests.faults.phases import kept_kv, wait_queued_for_decode
from tests.faults.processes import Process
from tests.proxy import Proxy

Make = Callable[..., Cluster]
COUNT = 4
#: How often a KV cache is asked for before it counts as lost.
TRIES = 4


class Setting:
    """A prefill node whose KV caches cross by TCP, through a proxy, and a decode node."""

    def __init__(self, cluster: Cluster, proxy: Proxy, port: int) -> None:
        self.cluster = cluster
        self.proxy = proxy
        self.nodes = [
            *cluster.start(
                "p",
                role="prefill",
                protocols="tcp",
                transfer={
                    "listen": f"127.0.0.1:{port}",
                    "advertise": f"127.0.0.1:{proxy.port}",
                    "token": "secret",
                },
            ),
            self.decoder("d"),
        ]

    def decoder(self, name: str) -> Process:
        """Start a decode node."""
        return self.cluster.start(name, role="decode", slots=COUNT, transfer={"token": "secret"})[0]

    def check(self, prefills: int) -> None:
        """Each was prefilled so often, in all, and nothing is left."""
        assert sum(self.cluster.starts("prefill").values()) == prefills
        assert not self.proxy.left_to_spoil
        self.cluster.check_clean(*(node for node in self.nodes if node.is_alive))


@pytest.fixture
def setting(make_cluster: Make) -> Iterator[Setting]:
    port = free_port()
    cluster = make_cluster(scheduler_name="splitwise", transfer={"timeout_s": 1.0})
    with Proxy(port) as proxy:
        yield Setting(cluster, proxy, port)
        # Processes first: they would try to connect again for ever.
        for process in cluster.processes:
            process.kill()


@pytest.mark.parametrize("how", ["cut_short", "spoil"])
def test_a_kv_cache_that_did_not_arrive_whole_is_fetched_again(setting: Setting, how: str) -> None:
    with setting.cluster.client() as client:
        getattr(setting.proxy, how)(2)
        check_answers(submit(client, "r", COUNT, kv_kib=512))
    setting.check(COUNT)


@pytest.mark.parametrize("how", ["cut_short", "spoil"])
def test_one_that_never_arrives_whole_is_made_again(setting: Setting, how: str) -> None:
    with setting.cluster.client() as client:
        getattr(setting.proxy, how)(TRIES)
        check_answers(submit(client, "r", 1, kv_kib=512))
    setting.check(2)


def test_a_network_that_stands_still_in_the_middle_costs_a_prefill(setting: Setting) -> None:
    cluster, proxy = setting.cluster, setting.proxy
    with cluster.client() as client:
        proxy.freeze()
        handles = submit(client, "r", COUNT, kv_kib=512)
        cluster.wait(lambda: sum(cluster.starts("prefill").values()) > COUNT)
        proxy.mend()
        check_answers(handles)
    setting.check(sum(cluster.starts("prefill").values()))
    assert max(cluster.starts("prefill").values()) == 2


def test_a_decode_node_killed_while_it_fetches_costs_no_prefill(make_cluster: Make) -> None:
    port = free_port()
    cluster = make_cluster(scheduler_name="splitwise", transfer={"timeout_s": 30.0})
    with Proxy(port) as proxy, cluster.client() as client:
        setting = Setting(cluster, proxy, port)
        proxy.freeze()
        handles = submit(client, "r", COUNT, kv_kib=512)
        cluster.wait(lambda: proxy.connections == COUNT)
        setting.nodes[1].kill()
        proxy.drop()
        proxy.mend()
        setting.nodes.append(setting.decoder("d2"))
        check_answers(handles)
        setting.check(COUNT)
        for process in cluster.processes:
            process.kill()


def test_a_sender_that_cannot_be_reached_any_more_costs_a_prefill(setting: Setting) -> None:
    cluster = setting.cluster
    with cluster.client() as client:
        setting.proxy.cut()
        [handle] = submit(client, "r", 1)
        cluster.wait(lambda: sum(cluster.starts("prefill").values()) > 1)
        setting.proxy.mend()
        check_answers([handle])
    cluster.check_clean(*setting.nodes)


def start(cluster: Cluster, **transfer: Any) -> list[Process]:
    """A prefill node with these settings, and a decode node with room for one request."""
    return [
        *cluster.start("p", role="prefill", transfer=transfer),
        *cluster.start("d", role="decode", slots=1),
    ]


def test_kv_caches_wait_for_room_to_decode(make_cluster: Make) -> None:
    cluster = make_cluster(scheduler_name="splitwise")
    nodes = start(cluster)
    with cluster.client() as client:
        long = submit(client, "long", 1, tokens=400, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts("fetch")) == 1)
        handles = submit(client, "r", 12)
        wait_queued_for_decode(cluster, 12)
        cluster.wait(lambda: kept_kv(cluster, nodes[0]) == 12 * 16 * 1024)
        check_answers(handles)
        check_answers(long, 400)
    assert set(cluster.starts("prefill").values()) == {1}
    assert set(cluster.starts("fetch").values()) == {1}
    cluster.check_clean(*nodes)


def test_kv_caches_that_waited_too_long_are_made_again(make_cluster: Make) -> None:
    cluster = make_cluster(scheduler_name="splitwise")
    nodes = start(cluster, keep_s=3.0)
    with cluster.client() as client:
        long = submit(client, "long", 1, tokens=400, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts("fetch")) == 1)
        handles = submit(client, "r", 6, tokens=5)
        wait_queued_for_decode(cluster, 6)
        # They are freed while they wait, and found gone once there is room.
        cluster.wait(lambda: kept_kv(cluster, nodes[0]) > 0)
        cluster.wait(lambda: kept_kv(cluster, nodes[0]) == 0)
        assert cluster.waiting_anywhere(DECODE_QUEUE) == 6
        check_answers(handles, 5)
        check_answers(long, 400)
    assert set(cluster.starts("fetch").values()) == {1}
    assert max(cluster.starts("prefill").values()) == 2
    cluster.check_clean(*nodes)


def test_no_more_is_prefilled_than_may_be_kept(make_cluster: Make) -> None:
    cluster = make_cluster(scheduler_name="splitwise")
    nodes = start(cluster, max_caches=8)
    with cluster.client() as client:
        long = submit(client, "long", 1, tokens=150, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts("fetch")) == 1)
        handles = [submit(client, f"r{n}", 1, tokens=3)[0] for n in range(30)]
        cluster.wait(lambda: cluster.waiting_anywhere(DECODE_QUEUE) > 0)
        check_answers(handles, 3)
        check_answers(long, 150)
    # None had to give way to another one.
    assert set(cluster.starts("prefill").values()) == {1}
    assert set(cluster.starts("fetch").values()) == {1}
    cluster.check_clean(*nodes)
