"""The outbox of a node: outputs, results and ends of claims on their way to Redis, in batches."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from inferq.cluster.topic import Topic
from inferq.messages import Output
from inferq.results.writer import StoredResult, Writer
from inferq.settings import Settings
from inferq.transport.deliveries import Deliveries, Delivery

logger = logging.getLogger(__name__)

#: Streams of producers that were found gone are remembered, the oldest are forgotten first.
MOST_GONE = 10_000


class Ending:
    """How a request ended, kept until its claim ends too: both are written in one step.

    Otherwise a node that dies in between would have the request run again after its end.
    """

    __slots__ = ("last", "results")

    def __init__(self) -> None:
        self.last: Output | None = None
        self.results: list[StoredResult] = []


class StreamOutbox:
    """An Outbox over Redis streams. What ends a claim travels with its last output, in one step.

    One writer serves all streams of an origin, so the outputs of a request keep their order.
    """

    def __init__(self, settings: Settings, make_topic: Callable[[], Topic]) -> None:
        self._deliveries: Deliveries
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._endings: dict[int, Ending] = {}
        self._writers = [
            Writer(settings, make_topic(), self._origin_is_gone, number)
            for number in range(settings.scheduler_writer_parallel)
        ]
        self.progressed_at = time.monotonic()

    def start(self, deliveries: Deliveries, on_fenced: Callable[[str], None]) -> None:
        """Start writing for the claims in ``deliveries``."""
        self._deliveries = deliveries
        for writer in self._writers:
            writer.start(on_fenced)

    def stop(self, timeout_s: float) -> None:
        """Write what is left, for at most this long, and stop."""
        for writer in self._writers:
            writer.stop(timeout_s)

    def begin(self, inc: str) -> None:
        """Write as this incarnation from now on; what an earlier one left is dropped."""
        self._endings.clear()
        for writer in self._writers:
            writer.begin(inc)

    def expect(self, delivery: Delivery) -> None:
        """A request was claimed: its origin is alive, or was when it sent it."""
        self._gone.pop(delivery.stream, None)
        if not len(self._deliveries):
            self.progressed_at = time.monotonic()

    def send(self, output: Output) -> bool:
        """Pass an output on; False when nobody wants it: the claim or the origin is gone."""
        delivery = self._deliveries.find(output.request_id)
        self.progressed_at = time.monotonic()
        if delivery is None or delivery.stream in self._gone:
            return False
        if output.attempt != delivery.attempt:
            if output.error is None:
                return False
            output = output._replace(attempt=delivery.attempt)
        if delivery.stream and output.finished:
            self._ending(delivery).last = output
        elif delivery.stream:
            self._writer(delivery).add_output(delivery.stream, output, at_once=output.index == 0)
        return True

    def is_congested(self, request_id: str) -> bool:
        """Whether the request had better wait before it produces more."""
        delivery = self._deliveries.find(request_id)
        if delivery is None or not self._writer(delivery).is_congested(delivery.stream):
            return False
        self.progressed_at = time.monotonic()  # it is not the engine that is slow
        return True

    def store(self, request_id: str, key: str, value: bytes, ttl_s: int) -> None:
        """Keep a final result for a stock producer, unless the claim was lost."""
        delivery = self._deliveries.find(request_id)
        if delivery is not None:
            self._ending(delivery).results.append((key, value, ttl_s))

    def unsettled(self) -> frozenset[int]:
        """Claims that have ended, of which Redis may not know yet."""
        return frozenset().union(*(writer.unsettled() for writer in self._writers))

    def settle(self, delivery: Delivery) -> None:
        """End a claim, after all that was sent for it."""
        self.progressed_at = time.monotonic()
        ending = self._endings.pop(delivery.claim, None) or Ending()
        self._writer(delivery).add_settle(
            delivery.stream, delivery.claim, delivery.request_id, ending.last, ending.results
        )

    def forget(self, delivery: Delivery) -> None:
        """The claim ends in another way: how its request ended here does not count."""
        self._endings.pop(delivery.claim, None)

    def _ending(self, delivery: Delivery) -> Ending:
        return self._endings.setdefault(delivery.claim, Ending())

    def _writer(self, delivery: Delivery) -> Writer:
        return self._writers[delivery.lane % len(self._writers)]

    def _origin_is_gone(self, stream: str) -> None:
        self._gone[stream] = None
        while len(self._gone) > MOST_GONE:
            self._gone.popitem(last=False)
