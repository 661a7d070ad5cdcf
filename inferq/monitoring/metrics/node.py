"""What a worker tells of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from inferq.monitoring.metrics.catalogue import NODE
from inferq.monitoring.metrics.families import Families
from inferq.monitoring.metrics.parts import Parts
from inferq.settings import Settings
from inferq.version import __version__

if TYPE_CHECKING:
    from inferq.worker.node import Node
    from inferq.worker.seat import Seat
    from inferq.worker.stats import Totals

logger = logging.getLogger(__name__)


class NodeCollector(Collector):
    """Reads the numbers when somebody asks for them; requests only count. For any thread."""

    def __init__(self, settings: Settings, name: str, parts: Callable[[], Parts]) -> None:
        self._settings = settings
        self._constant = {"topic": settings.scheduler_topic, "node": name}
        self._parts = parts

    def describe(self) -> list[Family]:
        """Nothing: the registry would read everything to learn the names."""
        return []

    def collect(self) -> Iterator[Family]:
        """All that can be said at this moment."""
        families = Families(NODE, self._constant)
        node, seat = self._parts()
        role = self._settings.role if node is None else node.role
        families.describe("inferq_node_info", role, self._settings.engine, __version__)
        if node is not None:
            _count(families, node.stats.totals())
            self._measure(families, node)
        if seat is not None:
            _watch(families, seat)
        yield from families

    def _measure(self, families: Families, node: Node) -> None:
        try:
            capacity = node.engine.capacity()
        except Exception:  # whatever an engine raises while it starts or stops
            logger.exception("the engine cannot tell its capacity")
        else:
            for name, total, free in (
                ("inferq_slots", capacity.total_slots, capacity.free_slots),
                ("inferq_kv_blocks", capacity.total_blocks, capacity.free_blocks),
            ):
                families.add(name, max(0, total - free), "used")
                families.add(name, free, "free")
        if node.transfer is not None:
            kept = node.transfer.kept()
            families.add("inferq_kept_kv_bytes", sum(cache.nbytes for cache in kept))
            families.add("inferq_kept_kv_caches", len(kept))
            families.add("inferq_kept_kv_limit_bytes", self._settings.transfer.max_bytes)


def _watch(families: Families, seat: Seat) -> None:
    families.add("inferq_running_requests", len(seat.deliveries))
    families.add("inferq_engine_stalled", seat.is_stuck())
    backlog = seat.outbox.backlog()
    families.add("inferq_outbox_ends", backlog.ends)
    families.add("inferq_outbox_oldest_seconds", backlog.oldest_s)


def _count(families: Families, totals: Totals) -> None:
    for (end, reason), count in totals.ends.items():
        families.add("inferq_requests_total", count, end, reason)
    families.distribute("inferq_queue_wait_seconds", totals.queue_wait)
    families.distribute("inferq_time_to_first_token_seconds", totals.first_token)
    families.distribute("inferq_time_per_output_token_seconds", totals.per_token)
    families.distribute("inferq_request_seconds", totals.whole)
    families.add("inferq_prompt_tokens_total", totals.prompt_tokens)
    families.add("inferq_output_tokens_total", totals.output_tokens)
    for source, count in totals.taken.items():
        families.add("inferq_taken_requests_total", count, source)
    families.add("inferq_retried_requests_total", totals.retried)
    families.add("inferq_recoveries_total", totals.recoveries)
    families.add("inferq_recovered_requests_total", totals.recovered)
    for reason, count in totals.letters.items():
        families.add("inferq_dead_letters_total", count, reason)
    families.add("inferq_lost_leases_total", totals.lost_leases)
    families.add("inferq_missed_renewals_total", totals.missed_renewals)
    for protocol, moved in totals.transfers.items():
        families.add("inferq_transfers_total", moved.caches, protocol)
        families.add("inferq_transfer_bytes_total", moved.nbytes, protocol)
        families.add("inferq_transfer_seconds_total", moved.seconds, protocol)
