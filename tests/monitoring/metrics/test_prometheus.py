"""Metrics, alarms and dashboard against a real Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from inferq.monitoring.metrics import register_cluster_collector
from tests.cluster_harness import QUEUE, SHORT_LEASE_S, Cluster
from tests.faults.answers import check_answers, submit
from tests.faults.processes import Process
from tests.monitoring.metrics.conftest import watched
from tests.monitoring.metrics.prometheus import (
    expressions,
    firing,
    metric_names,
    needs_prometheus,
    promtool,
    running,
)
from tests.monitoring.metrics.scrape import ask, get, served

pytestmark = needs_prometheus

SIMULATED = ("--engine", "simulated", "--setting", "simulated.speedup=100")


def split(cluster: Cluster) -> tuple[list[Process], list[int]]:
    """A prefill and a decode node, ready, and the ports of their metrics."""
    pairs = [watched(cluster, role, "--role", role, *SIMULATED) for role in ("prefill", "decode")]
    cluster.ready(*(node for node, _ in pairs))
    return [node for node, _ in pairs], [port for _, port in pairs]


def test_every_series_of_alerts_and_dashboard_exists(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = make_cluster(scheduler_name="splitwise")
    _, ports = split(cluster)
    registry = CollectorRegistry()
    register_cluster_collector(cluster.settings(), registry)
    with served(registry) as flower, running(tmp_path / "prom", ports, flower.port) as port:
        with cluster.client() as client:
            for handle in client.submit_many({"prompt": "hello", "max_tokens": 8} for _ in "1234"):
                assert len(handle.result(timeout=60).token_ids) == 8

        def missing() -> list[str]:
            counts = {q: ask(port, "query", query=q)["result"] for q in expressions().values()}
            return [query for query, result in counts.items() if not result]

        cluster.wait(lambda: not missing())
        for name in metric_names():
            assert ask(port, "series", **{"match[]": name}), name
        for group in ask(port, "rules")["groups"]:
            for rule in group["rules"]:
                assert rule["health"] == "ok", rule
        moved = ask(port, "query", query="sum(inferq_transfer_bytes_total)")["result"]
        assert float(moved[0]["value"][1]) > 0
        assert firing(ask(port, "alerts")) == set()
        for page in (*ports, flower.port):
            promtool("check", "metrics", given=get(page)[2])


def test_a_lost_node_and_a_dead_letter_raise_their_alarms(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = make_cluster(lease_s=SHORT_LEASE_S)
    nodes = [watched(cluster, name, slots=8) for name in ("a", "b")]
    cluster.ready(*(node for node, _ in nodes))
    registry = CollectorRegistry()
    register_cluster_collector(cluster.settings(), registry)
    ports = [port for _, port in nodes]
    with served(registry) as flower, running(tmp_path / "prom", ports, flower.port) as port:
        seen = "count(inferq_recoveries_total) == 2 and count(up == 1) == 3"
        cluster.wait(lambda: ask(port, "query", query=seen)["result"])
        assert firing(ask(port, "alerts")) == set()
        victim = nodes[0][0]
        with cluster.client() as client:
            handles = submit(client, "r", 12, tokens=40, pace_ms=20)
            cluster.wait(lambda: cluster.claims_of(victim) > 0)
            victim.kill()
            check_answers(handles, 40)
        cluster.redis.lpush(QUEUE, "no message at all")
        cluster.wait(lambda: len(cluster.dead()) == 1)
        wanted = {"InferqNodeLost", "InferqDeadLetters"}
        cluster.wait(lambda: wanted <= firing(ask(port, "alerts")))
