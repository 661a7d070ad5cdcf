"""What Redis tells of a topic: its nodes, those that are lost included, queues, dead letters."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import get_args

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from inferq.cluster.keys import STEPS, list_of
from inferq.cluster.link import AWAY, Link, explained
from inferq.cluster.pipeline import call_all
from inferq.cluster.rows import NodeState
from inferq.cluster.topic import Topic
from inferq.cluster.view import NodeView, View
from inferq.monitoring.metrics.catalogue import CLUSTER
from inferq.monitoring.metrics.families import Families
from inferq.settings import Settings

logger = logging.getLogger(__name__)

#: What is younger is given out again; what is older counts as nothing known, seconds.
FRESH_S, STALE_S = 2.0, 60.0
#: A scrape waits this long for new numbers, then it gets the last ones, seconds.
PATIENCE_S = 0.5
#: Redis is away when it does not answer for so long, seconds.
TIMEOUT_S = 2.0
#: Nodes of which each has series of its own; all are counted by state.
MOST_NODES = 500

_STATES: tuple[str, ...] = get_args(NodeState)
_registered: dict[CollectorRegistry, ClusterCollector] = {}


def register(settings: Settings, registry: CollectorRegistry | None) -> ClusterCollector:
    """Put a collector into a registry, in the place of one that was put there before."""
    registry = REGISTRY if registry is None else registry
    before = _registered.pop(registry, None)
    if before is not None:
        registry.unregister(before)
    collector = _registered[registry] = ClusterCollector(settings)
    registry.register(collector)
    return collector


class ClusterCollector(Collector):
    """Gives out what it read last, and reads anew, in a thread, when that is old.

    However many ask, one thread reads; however long Redis takes, who asks waits PATIENCE_S at most.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._reading: threading.Thread | None = None
        self._families: list[Family] = []
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._link = Link(settings, timeout_s=TIMEOUT_S)
        topic = Topic(settings, self._link)
        self._view = View(topic)
        self._commands = [
            *(
                ("LLEN", list_of(base, step))
                for base in (topic.base, topic.decode_base)
                for step in range(1, len(STEPS) + 1)
            ),
            ("XLEN", f"{topic.prefix}dead"),
        ]

    def describe(self) -> list[Family]:
        """Nothing: the registry would read everything to learn the names."""
        return []

    def collect(self) -> Iterator[Family]:
        """What is known, and whether Redis could be read."""
        self._refresh()
        with self._lock:
            families, read_at, tried_at = self._families, self._read_at, self._tried_at
        # A read that hangs leaves read_at behind: what it says is given out for a while.
        is_up = read_at >= tried_at and time.monotonic() - read_at < STALE_S
        own = Families(CLUSTER, {"topic": self._settings.scheduler_topic})
        own.add("inferq_redis_up", is_up)
        yield from own
        if is_up:
            yield from families

    def _refresh(self) -> None:
        with self._lock:
            if self._reading is None and time.monotonic() - self._tried_at > FRESH_S:
                self._reading = threading.Thread(
                    target=self._read, name="inferq-cluster-metrics", daemon=True
                )
                self._reading.start()
            reading = self._reading
        if reading is not None:
            reading.join(PATIENCE_S)

    def _read(self) -> None:
        families: list[Family] | None = None
        try:
            families = list(self._look())
        except (*AWAY, RedisError) as exc:
            logger.info("no metrics of the cluster: %s", explained(exc))
        except Exception:  # whatever somebody has written to Redis must not end the process's page
            logger.exception("no metrics of the cluster")
            self._link.close()
        now = time.monotonic()
        with self._lock:
            self._reading, self._tried_at = None, now
            if families is not None:
                self._families, self._read_at = families, now

    def _look(self) -> Families:
        families = Families(CLUSTER, {"topic": self._settings.scheduler_topic})
        nodes = self._view.nodes()
        states = Counter(node.state if node.state in _STATES else "unknown" for node in nodes)
        for state in (*_STATES, "unknown"):
            families.add("inferq_cluster_nodes", states[state], state)
        for node in nodes[:MOST_NODES]:
            _add_node(families, node)
        *lengths, letters = call_all(self._link, self._commands)
        for number, phase in enumerate(("prefill", "decode")):
            waiting = lengths[number * len(STEPS) : (number + 1) * len(STEPS)]
            families.add("inferq_cluster_queued_requests", sum(waiting), phase)
        families.add("inferq_cluster_dead_letters", letters)
        return families


def _add_node(families: Families, node: NodeView) -> None:
    name = node.name
    about = (name, node.role, node.state, node.engine, node.version)
    families.describe("inferq_cluster_node_info", *about)
    families.add("inferq_cluster_node_up", node.live, name)
    families.add("inferq_cluster_node_queued_requests", node.queued, name)
    families.add("inferq_cluster_node_claimed_requests", node.claims, name)
    families.add("inferq_cluster_node_stolen_requests_total", node.stolen, name)
    if not node.live:
        return
    for metric, total, free in (
        ("inferq_cluster_node_slots", node.total_slots, node.free_slots),
        ("inferq_cluster_node_kv_blocks", node.total_blocks, node.free_blocks),
    ):
        families.add(metric, max(0, total - free), name, "used")
        families.add(metric, free, name, "free")
