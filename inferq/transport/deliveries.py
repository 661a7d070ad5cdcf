"""Claimed messages on their way through Celery, from the claim to its end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from inferq.transport.gate import RawMessage
from inferq.transport.wakeup import Wakeup

TAG_PREFIX = "claim-"


class Delivery(NamedTuple):
    """One claim of this node.

    ``stream``: that of its outputs, empty for a stock producer. ``lane``: a number that all
    requests of an origin share.
    """

    tag: str
    claim: int
    request_id: str
    attempt: int
    origin: str
    stream: str
    lane: int = 0


def tag_of_claim(claim: int) -> str:
    """The delivery tag of a claim."""
    return f"{TAG_PREFIX}{claim}"


class Ends(NamedTuple):
    """What is to happen when a claim ends; any thread may call these."""

    settled: Callable[[Delivery], None]
    put_back: Callable[[Delivery], None]
    refused: Callable[[Delivery], None]


class Deliveries:
    """The source of the worker's channel: see ``transport.redis.Source``.

    A claim is live from ``add`` until its first end; later ends, and those of claims that were
    lost with a lease, do nothing.
    """

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._by_tag: dict[str, Delivery] = {}
        self._by_id: dict[str, Delivery] = {}
        self._inbound: deque[tuple[str, RawMessage]] = deque()
        self._lock = threading.Lock()
        self._signal = Wakeup()

    def __len__(self) -> int:
        return len(self._by_tag)

    def close(self) -> None:
        """Free the descriptor; nothing is delivered any more."""
        self._signal.close()

    def add(self, delivery: Delivery, message: RawMessage) -> None:
        """A message was claimed; ``flush`` makes the consumer fetch it."""
        with self._lock:
            self._by_tag[delivery.tag] = delivery
            self._by_id[delivery.request_id] = delivery
        self._inbound.append((delivery.tag, message))

    def flush(self) -> None:
        """Wake the consumer when something waits for it."""
        if self._inbound:
            self._signal.set()

    def claims(self) -> frozenset[int]:
        """The live claims."""
        with self._lock:
            return frozenset(delivery.claim for delivery in self._by_tag.values())

    def find(self, request_id: str) -> Delivery | None:
        """The live claim of a request."""
        return self._by_id.get(request_id)

    def drop_all(self) -> list[Delivery]:
        """All claims are over without an end of their own; returns what they were."""
        with self._lock:
            self._inbound.clear()
            dropped = list(self._by_tag.values())
            self._by_tag.clear()
            self._by_id.clear()
        return dropped

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._signal.fileno()

    def take(self, limit: int) -> list[tuple[RawMessage, str]]:
        """Messages that were claimed and not yet handed over."""
        self._signal.clear()
        taken: list[tuple[RawMessage, str]] = []
        while self._inbound and len(taken) < limit:
            tag, message = self._inbound.popleft()
            if tag in self._by_tag:
                queue = message["properties"]["delivery_info"]["routing_key"]
                taken.append((message, queue))
        self.flush()
        return taken

    def owns(self, delivery_tag: str) -> bool:
        """Whether the tag is that of a claim, live or not."""
        return isinstance(delivery_tag, str) and delivery_tag.startswith(TAG_PREFIX)

    def settle(self, delivery_tag: str) -> None:
        """The request has ended."""
        self._end(delivery_tag, self._ends.settled)

    def put_back(self, delivery_tag: str) -> None:
        """The request is to be run elsewhere."""
        self._end(delivery_tag, self._ends.put_back)

    def refuse(self, delivery_tag: str) -> None:
        """The message cannot be run."""
        self._end(delivery_tag, self._ends.refused)

    def _end(self, tag: str, end: Callable[[Delivery], None]) -> None:
        with self._lock:
            delivery = self._by_tag.pop(tag, None)
            if delivery is not None and self._by_id.get(delivery.request_id) is delivery:
                del self._by_id[delivery.request_id]
        if delivery is not None:
            end(delivery)
