"""What Redis tells of a topic, in a process that is no node."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from inferq import Client, Settings
from inferq.monitoring.metrics import cluster as module
from inferq.monitoring.metrics import register_cluster_collector
from inferq.monitoring.metrics.catalogue import CLUSTER
from inferq.monitoring.metrics.cluster import MOST_NODES, ClusterCollector
from tests.fake_node import FakeNode
from tests.monitoring.metrics.scrape import Scrape, served
from tests.monitoring.metrics.scrape import get as get_page
from tests.proxy import Proxy
from tests.redis_server import RedisServer, cluster_settings
from tests.support import LONG_S

NODES = "inferq:default:nodes"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is old enough to be given out again, and there is time to read."""
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    monkeypatch.setattr(module, "PATIENCE_S", LONG_S)


@pytest.fixture
def registry(settings: Settings) -> CollectorRegistry:
    made = CollectorRegistry()
    register_cluster_collector(settings, made)
    return made


@pytest.fixture
def node(settings: Settings) -> Iterator[FakeNode]:
    running = FakeNode(settings)
    yield running
    running.close()


def read(registry: CollectorRegistry) -> Scrape:
    return Scrape(generate_latest(registry).decode())


def test_an_empty_topic_is_up(registry: CollectorRegistry) -> None:
    seen = read(registry)
    assert seen.get("inferq_redis_up", topic="default") == 1
    assert seen.get("inferq_cluster_nodes") == 0
    assert seen.get("inferq_cluster_queued_requests", phase="prefill") == 0


def test_nodes_and_queues_show(
    registry: CollectorRegistry, node: FakeNode, settings: Settings
) -> None:
    with Client(settings) as producer, Client(settings, node=node.name) as beside:
        producer.submit_many({"prompt": "p"} for _ in range(3))
        node.take_exactly(3)
        producer.submit_many({"prompt": "p", "priority": n} for n in range(6))
        beside.submit_many([{"prompt": "p"}, {"prompt": "p"}])
        seen = read(registry)
    of_node = {"node": node.name, "topic": "default"}
    assert seen.get("inferq_cluster_queued_requests", phase="prefill") == 6
    assert seen.get("inferq_cluster_node_queued_requests", **of_node) == 2
    assert seen.get("inferq_cluster_node_claimed_requests", **of_node) == 3
    assert seen.get("inferq_cluster_node_up", **of_node) == 1
    assert seen.get("inferq_cluster_node_kv_blocks", **of_node, state="used") == 10
    assert seen.get("inferq_cluster_node_slots", **of_node, state="free") == 7
    assert seen.get("inferq_cluster_node_info", role="mixed", engine="fake", state="ready") == 1
    assert seen.get("inferq_cluster_nodes", state="ready") == 1
    known = {metric.name for metric in CLUSTER}
    assert seen.names == known


def test_a_node_that_has_gone_is_down(registry: CollectorRegistry, node: FakeNode) -> None:
    node.topic.set_state(node.name, node.inc, "gone")
    seen = read(registry)
    assert seen.get("inferq_cluster_node_up", node=node.name) == 0
    assert seen.get("inferq_cluster_nodes", state="gone") == 1
    assert "inferq_cluster_node_slots" not in seen.names


def test_dead_letters_show(registry: CollectorRegistry, server: RedisServer) -> None:
    with server.client() as redis:
        redis.xadd("inferq:default:dead", {"reason": "malformed"})
    assert read(registry).get("inferq_cluster_dead_letters") == 1


def test_redis_that_goes_away_and_returns(
    registry: CollectorRegistry, node: FakeNode, server: RedisServer
) -> None:
    assert read(registry).get("inferq_cluster_node_up") == 1
    server.stop()
    seen = read(registry)
    assert seen.get("inferq_redis_up") == 0
    assert seen.names == {"inferq_redis_up"}
    server.start()
    assert read(registry).get("inferq_redis_up") == 1


def test_nobody_waits_long_for_a_redis_that_hangs(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(module, "TIMEOUT_S", LONG_S)
    with Proxy(server.port) as proxy:
        proxy.freeze()
        registry = CollectorRegistry()
        register_cluster_collector(cluster_settings(proxy.port), registry)
        started = time.monotonic()
        assert read(registry).get("inferq_redis_up") == 0
        assert time.monotonic() - started < LONG_S / 2


def test_one_thread_reads_however_many_ask(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    monkeypatch.setattr(module, "TIMEOUT_S", LONG_S)
    with Proxy(server.port) as proxy:
        proxy.freeze()
        registry = CollectorRegistry()
        register_cluster_collector(cluster_settings(proxy.port), registry)
        with ThreadPoolExecutor(20) as scrapers:
            pages = list(scrapers.map(lambda _: read(registry), range(60)))
        reading = [t for t in threading.enumerate() if t.name == "inferq-cluster-metrics"]
        assert {page.get("inferq_redis_up") for page in pages} == {0}
        assert len(reading) == 1
    reading[0].join(LONG_S)


@pytest.mark.parametrize(
    "name", ['n"1\n', "n\\", "n\udc80", "n\0x", "ü" * 5000, "}{", "\u2028", ""]
)
def test_hostile_names_are_escaped(
    registry: CollectorRegistry, node: FakeNode, server: RedisServer, name: str
) -> None:
    raw = name.encode("utf-8", "surrogateescape")
    record = b'{"role": "\\ud800\\n\\"", "total_slots": 9223372036854775807, "free_slots": 1}'
    with server.client() as redis:
        redis.hset(NODES, raw, record)
        redis.hset("inferq:default:states", raw, "strange")
    seen = read(registry)
    assert seen.get("inferq_cluster_nodes", state="unknown") == 1
    nodes = {s.labels["node"] for s in seen.samples if s.name == "inferq_cluster_node_up"}
    assert len(nodes) == 2
    assert all(len(found) < 150 for found in nodes)


def test_names_that_differ_at_their_ends_stay_apart(
    registry: CollectorRegistry, server: RedisServer
) -> None:
    with server.client() as redis:
        for end in "ab":
            redis.hset(NODES, "n" * 400 + end, "{}")
    seen = read(registry)
    nodes = {s.labels["node"] for s in seen.samples if s.name == "inferq_cluster_node_up"}
    assert len(nodes) == 2


def test_the_number_of_series_is_bounded(registry: CollectorRegistry, server: RedisServer) -> None:
    with server.client() as redis:
        redis.hset(NODES, mapping={f"n{n}": "{}" for n in range(MOST_NODES + 100)})
    seen = read(registry)
    assert seen.get("inferq_cluster_nodes") == MOST_NODES + 100
    assert sum(s.name == "inferq_cluster_node_up" for s in seen.samples) == MOST_NODES


@pytest.mark.parametrize("key", ["nodes", "dead", "leases"])
def test_keys_of_another_type_are_no_error(
    registry: CollectorRegistry, server: RedisServer, key: str
) -> None:
    with server.client() as redis:
        redis.set(f"inferq:default:{key}", "x")
        assert read(registry).get("inferq_redis_up") == 0
        redis.delete(f"inferq:default:{key}")
    assert read(registry).get("inferq_redis_up") == 1


def test_many_scrapes_at_once_read_redis_a_few_times(
    settings: Settings, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH_S", LONG_S)
    registry = CollectorRegistry()
    register_cluster_collector(settings, registry)
    before = _commands(server)
    with served(registry) as page, ThreadPoolExecutor(100) as scrapers:
        pages = list(scrapers.map(lambda _: get_page(page.port), range(100)))
    assert {status for status, _, _ in pages} == {200}
    assert all("inferq_redis_up" in body for _, _, body in pages)
    assert _commands(server) - before < 100


def test_a_registry_holds_one_collector(settings: Settings) -> None:
    registry = CollectorRegistry()
    for _ in range(2):
        register_cluster_collector(settings, registry)
    seen = read(registry)
    assert sum(s.name == "inferq_redis_up" for s in seen.samples) == 1


def test_the_default_registry_is_that_of_the_process(settings: Settings) -> None:
    collector = register_cluster_collector(settings)
    try:
        assert isinstance(collector, ClusterCollector)
        assert b"inferq_redis_up{" in generate_latest(REGISTRY)
    finally:
        module._registered.pop(REGISTRY)
        REGISTRY.unregister(collector)


def _commands(server: RedisServer) -> int:
    with server.client() as redis:
        info = redis.info("stats")
        assert isinstance(info, dict)
        return int(info["total_commands_processed"])
