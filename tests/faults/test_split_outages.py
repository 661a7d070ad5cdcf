"""Redis between the two phases: answers that are lost, connections, a frozen and a killed server;
stock producers, and ids that are used twice.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from celery.result import AsyncResult

from inferq import DuplicateRequest
from inferq.cluster.link import ScriptName
from tests.cluster_harness import QUEUE, Cluster, frozen
from tests.faults.ambush import Ambush
from tests.faults.answers import check_answers, requests, submit
from tests.faults.hostile import stock_message
from tests.faults.phases import at, wait_at, wait_queued_for_decode
from tests.faults.processes import Process

Make = Callable[..., Cluster]
ROLES = ("prefill", "decode")


class Setting:
    """A node of each phase behind an ambush, and a producer that reaches Redis directly."""

    def __init__(self, cluster: Cluster, proxy: Ambush) -> None:
        self.cluster = cluster
        self.proxy = proxy
        self.url = f"redis://127.0.0.1:{proxy.port}/0"

    def start(self) -> list[Process]:
        """Start the nodes."""
        nodes = [self.cluster.node(role, role=role, url=self.url) for role in ROLES]
        self.cluster.ready(*nodes)
        return nodes


@pytest.fixture
def cluster(make_split: Make) -> Cluster:
    return make_split()


@pytest.fixture
def setting(cluster: Cluster) -> Iterator[Setting]:
    with Ambush(cluster.server.port) as proxy:
        yield Setting(cluster, proxy)
        # Processes first: they would try to connect again for ever.
        for process in cluster.processes:
            process.kill()


def check_once(cluster: Cluster, *nodes: Process) -> None:
    """Each request went through each phase once."""
    assert set(cluster.starts("prefill").values()) == {1}
    assert set(cluster.starts("decode").values()) == {1}
    cluster.check_clean(*nodes)


@pytest.mark.parametrize("name", ["hop", "emit"])
def test_a_step_whose_answer_was_lost_is_not_done_twice(setting: Setting, name: ScriptName) -> None:
    nodes = setting.start()
    with setting.cluster.client() as client:
        check_answers(submit(client, "warm", 2, tokens=3), 3)
        setting.proxy.lose_answers(name, 3)
        check_answers(submit(client, "r", 8))
        check_answers(submit(client, "s", 8))
    assert setting.proxy.sprung == 3
    check_once(setting.cluster, *nodes)


def test_a_claim_whose_answer_was_lost_goes_on(setting: Setting) -> None:
    cluster = setting.cluster
    nodes = setting.start()
    with cluster.client() as client:
        check_answers(submit(client, "warm", 2, tokens=3), 3)
        setting.proxy.lose_answers("claim", 2)
        check_answers(submit(client, "r", 8))
    assert setting.proxy.sprung == 2
    cluster.check_clean(*nodes)


def test_the_way_back_to_prefill_is_taken_once(setting: Setting) -> None:
    cluster = setting.cluster
    (lost,) = cluster.start("p1", role="prefill")
    with cluster.client() as client:
        handles = submit(client, "r", 8)
        wait_queued_for_decode(cluster, 8)
        lost.kill()
        setting.proxy.lose_answers("hop", 2)
        nodes = setting.start()
        check_answers(handles)
    assert setting.proxy.sprung == 2
    assert set(cluster.starts("prefill").values()) == {2}
    cluster.check_clean(*nodes)


def test_connections_cut_at_any_moment_lose_nothing_and_repeat_nothing(setting: Setting) -> None:
    nodes = setting.start()
    with setting.cluster.client(url=setting.url) as client:
        handles = submit(client, "r", 60, prefill_ms=200, export_ms=30, pace_ms=20)
        for _ in range(25):
            setting.proxy.drop()
            time.sleep(random.uniform(0.0, 0.08))
        check_answers(handles)
    if setting.cluster.family == "concurrent":
        # A claim whose answer was lost is given back, which is the end of the other half: only
        # the caller sees each token once.
        setting.cluster.check_clean(*nodes)
    else:
        check_once(setting.cluster, *nodes)


def test_a_redis_that_stands_still_during_handoffs_loses_nothing(cluster: Cluster) -> None:
    nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", 20, prefill_ms=300, pace_ms=20)
        wait_at(cluster, nodes[0], "prefill", 10)
        with frozen(cluster.server):
            time.sleep(2.0)  # what is tested is that nothing happens meanwhile
        check_answers(handles)
    check_once(cluster, *nodes)


def test_a_redis_that_was_killed_goes_on_with_what_is_on_disk(make_split: Make) -> None:
    cluster = make_split(durable=True)
    nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", 20, tokens=30, prefill_ms=200, pace_ms=20)
        wait_at(cluster, nodes[0], "prefill", 10)
        cluster.server.kill()
        time.sleep(random.uniform(0.0, 1.0))
        cluster.server.start()
        check_answers(handles, 30)
    check_once(cluster, *nodes)


def test_an_id_is_in_use_in_both_phases(cluster: Cluster) -> None:
    nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
    with cluster.client() as owner, cluster.client() as other:
        [handle] = submit(owner, "r", 1, tokens=100, prefill_ms=500, pace_ms=20)
        wait_at(cluster, nodes[0], "prefill")
        for _ in range(2):
            for client in (owner, other):
                with pytest.raises(DuplicateRequest):
                    client.submit_many(requests("r", 1))
            # Both engines have it, or the second one only.
            cluster.wait(lambda: at(cluster, nodes[1], "decode") + at(cluster, nodes[1], "fetch"))
        check_answers([handle], 100)
        cluster.check_clean(*nodes)
        # Its origin holds it until it is read or forgotten.
        check_answers(submit(other, "r", 1, tokens=5), 5)
    cluster.check_clean(*nodes)


def test_a_stock_producer_gets_its_result_over_both_phases(cluster: Cluster) -> None:
    nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
    url = cluster.server.url
    app = Celery("stock", broker=url, backend=url, set_as_current=False)
    results = [
        app.send_task(
            "inferq.prefill",
            kwargs={"prompt_token_ids": [10], "max_tokens": 20},
            queue=QUEUE,
            serializer="json",
        )
        for _ in range(8)
    ]
    for result in results:
        answer = result.get(timeout=60)
        assert answer["token_ids"] == list(range(20))
        assert answer["node"] == nodes[1].name
    app.close()
    check_once(cluster, *nodes)


def test_a_stock_producers_request_survives_nodes_of_both_phases(make_split: Make) -> None:
    cluster = make_split()
    victims = cluster.start("p1", role="prefill") + cluster.start("d1", role="decode")
    with cluster.client() as client:
        for n in range(4):
            kwargs = {"prompt_token_ids": [20, 1000], "max_tokens": 60}
            cluster.redis.lpush(QUEUE, json.dumps(stock_message(f"stock-{n}", kwargs)))
        wait_at(cluster, victims[0], "prefill", 4)
        victims[0].kill()
        nodes = cluster.start("p2", role="prefill")
        cluster.wait(lambda: at(cluster, victims[1], "decode") + at(cluster, victims[1], "fetch"))
        victims[1].kill()
        nodes += cluster.start("d2", role="decode")
        for n in range(4):
            answer = AsyncResult(f"stock-{n}", app=client.app).get(timeout=60)
            assert answer["token_ids"] == list(range(60))
    cluster.check_clean(*nodes)
