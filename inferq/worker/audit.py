"""Compares what Redis says a node has claimed with what the node knows of."""

from __future__ import annotations

import logging
import time

from inferq.cluster.topic import Return, Topic
from inferq.results.outbox import StreamOutbox
from inferq.settings import Settings
from inferq.transport.deliveries import Deliveries

logger = logging.getLogger(__name__)


class Audit:
    """Gives back claims that nobody works on: their reply was lost with a connection.

    A claim is given back when two looks, some time apart, find it unknown here: a single look
    may fall between two steps of a claim that is well. For the taker's thread.
    """

    def __init__(
        self,
        settings: Settings,
        topic: Topic,
        node: str,
        deliveries: Deliveries,
        outbox: StreamOutbox,
    ) -> None:
        self._period_s = settings.cluster.lease_ttl_s
        self._topic = topic
        self._node = node
        self._deliveries = deliveries
        self._outbox = outbox
        self._suspects: frozenset[int] = frozenset()
        self._due_at = time.monotonic() + self._period_s

    def run_if_due(self, inc: str) -> bool:
        """Look when it is time to; True when claims were given back. Raises Fenced, AWAY."""
        now = time.monotonic()
        if now < self._due_at:
            return False
        self._due_at = now + self._period_s
        claimed = frozenset(self._topic.claims(inc))
        # Known is read last: what was claimed before must be in it by now.
        unknown = claimed - self._deliveries.claims() - self._outbox.unsettled()
        lost, self._suspects = unknown & self._suspects, unknown
        if not lost:
            return False
        logger.warning("%d claims whose reply was lost are given back", len(lost))
        self._topic.put_back(self._node, inc, [Return(claim, True) for claim in sorted(lost)])
        return True
