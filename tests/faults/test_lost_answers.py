"""Redis did it, but its answer was lost: nobody may do it twice, and nobody may forget it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest

from inferq.cluster.link import ScriptName
from tests.cluster_harness import Cluster
from tests.faults.ambush import Ambush
from tests.faults.answers import check_answers, submit
from tests.faults.processes import Process

Make = Callable[..., Cluster]


class Setting:
    """A node behind an ambush, and a producer that reaches Redis directly."""

    def __init__(self, cluster: Cluster, proxy: Ambush) -> None:
        self.cluster = cluster
        self.proxy = proxy
        self.url = f"redis://127.0.0.1:{proxy.port}/0"

    def node(self, name: str, **options: int) -> Process:
        """A node that reaches Redis through the proxy."""
        return self.cluster.start(name, url=self.url, **options)[0]


@pytest.fixture
def setting(make_cluster: Make) -> Iterator[Setting]:
    cluster = make_cluster(lease_s=2.0)
    with Ambush(cluster.server.port) as proxy:
        yield Setting(cluster, proxy)
        # Processes first: they would try to connect again for ever.
        for process in cluster.processes:
            process.kill()


def check_all_claims_end(cluster: Cluster, node: Process) -> None:
    """Nothing is left of what has ended."""
    cluster.wait(lambda: cluster.claims_of(node) == 0 and cluster.waiting() == 0)
    assert cluster.dead() == []
    assert node.is_alive


def test_a_claim_whose_answer_was_lost_is_run(setting: Setting) -> None:
    cluster = setting.cluster
    node = setting.node("a", slots=4)
    with cluster.client() as client:
        check_answers(submit(client, "warm", 2, tokens=2), 2)
        setting.proxy.lose_answers("claim")
        check_answers(submit(client, "r", 8, tokens=5), 5)
    assert setting.proxy.sprung == 1
    check_all_claims_end(cluster, node)


@pytest.mark.parametrize("tokens", [1, 20])
def test_outputs_whose_answer_was_lost_are_seen_once(setting: Setting, tokens: int) -> None:
    cluster = setting.cluster
    node = setting.node("a", slots=4)
    with cluster.client() as client:
        check_answers(submit(client, "warm", 2, tokens=2), 2)
        setting.proxy.lose_answers("emit", 3)
        check_answers(submit(client, "r", 8, tokens=tokens), tokens)
    assert setting.proxy.sprung == 3
    assert set(cluster.starts().values()) == {1}
    check_all_claims_end(cluster, node)


@pytest.mark.parametrize("name", ["beat", "put_back", "state"])
def test_other_steps_may_be_repeated(setting: Setting, name: ScriptName) -> None:
    cluster = setting.cluster
    node = setting.node("a", slots=4)
    setting.proxy.lose_answers(name)
    with cluster.client() as client:
        handles = submit(client, "r", 8, tokens=50, pace_ms=20)
        if name != "beat":  # these are part of leaving
            cluster.wait(lambda: len(cluster.starts()) >= 4)
            node.term()
            cluster.wait(lambda: cluster.state_of(node) == "draining")
            node.term()
            assert node.wait() == 0
            cluster.start("b", slots=8)
        check_answers(handles, 50)
    assert setting.proxy.sprung == 1
    if name == "beat":
        assert set(cluster.starts().values()) == {1}


def test_a_submit_whose_answer_was_lost_runs_once(setting: Setting) -> None:
    cluster = setting.cluster
    cluster.start("a")
    with cluster.client(url=setting.url) as client:
        setting.proxy.lose_answers("submit", 2)
        check_answers(submit(client, "r", 5))
    assert setting.proxy.sprung == 2
    assert set(cluster.starts().values()) == {1}


def test_connections_cut_at_any_moment_lose_nothing_and_repeat_nothing(setting: Setting) -> None:
    cluster, proxy = setting.cluster, setting.proxy
    node = setting.node("a", slots=16)
    with cluster.client(url=setting.url) as client:
        handles = submit(client, "r", 80, tokens=20, pace_ms=15)
        for _ in range(25):
            proxy.drop()
            time.sleep(random.uniform(0.0, 0.08))
        check_answers(handles)
    assert set(cluster.starts().values()) == {1}
    check_all_claims_end(cluster, node)


def test_a_node_that_cannot_reach_redis_for_less_than_a_lease_goes_on(setting: Setting) -> None:
    cluster, proxy = setting.cluster, setting.proxy
    node = setting.node("a", slots=16)
    other = cluster.start("b", slots=16)[0]
    with cluster.client() as client:
        handles = submit(client, "r", 32, tokens=80, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) >= 32)
        proxy.cut()
        time.sleep(0.8)
        proxy.mend()
        check_answers(handles, 80)
    assert set(cluster.starts().values()) == {1}
    check_all_claims_end(cluster, node)
    check_all_claims_end(cluster, other)


def test_a_node_that_cannot_reach_redis_for_longer_is_replaced_and_comes_back(
    setting: Setting,
) -> None:
    cluster, proxy = setting.cluster, setting.proxy
    node = setting.node("a", slots=16)
    cluster.start("b", slots=32)
    with cluster.client() as client:
        handles = submit(client, "r", 16, tokens=60, pace_ms=20)
        cluster.wait(lambda: cluster.claims_of(node) > 0)
        before = cluster.incarnation(node)
        proxy.freeze()
        cluster.wait(lambda: cluster.incarnation(node) != before)
        proxy.mend()
        check_answers(handles, 60)
        cluster.wait(lambda: cluster.incarnation(node) not in ("", before))
        cluster.ready(node)
    check_all_claims_end(cluster, node)
