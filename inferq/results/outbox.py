"""The outbox of a node: outputs, results and ends of claims on their way to Redis, in batches."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from inferq.cluster.keys import quoted
from inferq.cluster.placing import Placing
from inferq.cluster.stories import pack_story
from inferq.cluster.topic import Hop, Settle, Topic
from inferq.errors import EngineError, EngineStepError, KvLost
from inferq.messages import FinishReason, Output
from inferq.results.backlog import Backlog, Lag
from inferq.results.pending import StoredResult
from inferq.results.writer import Writer
from inferq.settings import Settings
from inferq.transport.deliveries import Deliveries, Delivery

logger = logging.getLogger(__name__)

#: Streams of producers that were found gone are remembered, the oldest are forgotten first.
MOST_GONE = 10_000


_ENGINE_FAULTS = frozenset({EngineError.code, EngineStepError.code, KvLost.code})


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

    def __init__(
        self,
        settings: Settings,
        node: str,
        make_topic: Callable[[], Topic],
        placing: Placing | None = None,
    ) -> None:
        self._deliveries: Deliveries
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._endings: dict[int, Ending] = {}
        #: Claims that have gone on elsewhere; whether this node computes the other half.
        self._moved: dict[int, bool] = {}
        self._on_half_failed: Callable[[str, str, str], None] = lambda *_: None
        self._on_ended: Callable[[Output, int], None] = lambda *_: None
        self._writers = [
            Writer(settings, node, make_topic(), self._origin_is_gone, placing, number)
            for number in range(settings.scheduler_writer_parallel)
        ]
        self._lag = Lag(self.unsettled)
        self.progressed_at = time.monotonic()

    def start(
        self,
        deliveries: Deliveries,
        on_fenced: Callable[[str], None],
        on_half_failed: Callable[[str, str, str], None] = lambda *_: None,
        on_ended: Callable[[Output, int], None] = lambda *_: None,
    ) -> None:
        """Start writing for the claims in ``deliveries``.

        ``on_half_failed``: id, code and message, when the half of a request that is computed here
        beside another node has failed. ``on_ended``: a last output, and the tokens before it.
        """
        self._deliveries = deliveries
        self._on_half_failed, self._on_ended = on_half_failed, on_ended
        for writer in self._writers:
            writer.start(on_fenced)

    def stop(self, timeout_s: float) -> None:
        """Write what is left, for at most this long, and stop."""
        for writer in self._writers:
            writer.stop(timeout_s)

    def begin(self, inc: str) -> None:
        """Write as this incarnation from now on; what an earlier one left is dropped."""
        self._endings.clear()
        self._moved.clear()
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
        if output.finished:
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

    def hop(
        self,
        request_id: str,
        base: str,
        message: bytes,
        size: tuple[int, int],
        *,
        again: bool,
        holds: bool,
    ) -> None:
        """Pass a request on to the phase whose shared queue is ``base``, after what was sent.

        ``size``: of prompt and answer, tokens. See ``topic.Hop`` for the rest.
        """
        delivery = self._deliveries.find(request_id)
        if delivery is None or delivery.claim in self._moved:
            return
        self._moved[delivery.claim] = holds
        hop = Hop(delivery.claim, base, message, *size, again, holds, delivery.stream)
        self._writer(delivery).add_hop(delivery.stream, hop)
        self._lag.begin(delivery.claim)

    def is_half(self, claim: int) -> bool:
        """Whether a claim has gone on elsewhere while this node computes the other half."""
        return self._moved.get(claim, False)

    def unsettled(self) -> frozenset[int]:
        """Claims that have ended, of which Redis may not know yet."""
        return frozenset().union(*(writer.unsettled() for writer in self._writers))

    def backlog(self) -> Backlog:
        """Ends of requests that are not written yet. To be read now and then."""
        return self._lag.read()

    def settle(self, delivery: Delivery) -> None:
        """End a claim, after all that was sent for it."""
        self.progressed_at = time.monotonic()
        ending = self._endings.pop(delivery.claim, None) or Ending()
        is_half = self._moved.pop(delivery.claim, None)
        if is_half is not None:
            if is_half:
                self._end_half(delivery, ending.last)
            return
        last = ending.last
        failed = last is not None and last.error is not None
        settle = Settle(
            delivery.claim, quoted(delivery.request_id), failed, False, pack_story(last)
        )
        self._writer(delivery).add_settle(
            delivery.stream, settle, last if delivery.stream else None, ending.results
        )
        self._lag.begin(delivery.claim)
        if last is not None:
            self._on_ended(last, last.index + len(last.token_ids))

    def _end_half(self, delivery: Delivery, last: Output | None) -> None:
        """The claim is elsewhere; what was computed here beside it is done."""
        failed = last is not None and last.finish_reason == FinishReason.ERROR
        if last is not None and last.error is not None and failed:
            logger.warning("half of request %s failed: %s", delivery.request_id, last.error)
            # An engine may only have noticed that the other half was lost: a new attempt may help.
            if last.error.code not in _ENGINE_FAULTS:
                self._on_half_failed(delivery.request_id, *last.error)
        settle = Settle(delivery.claim, quoted(delivery.request_id), failed, held=True)
        self._writer(delivery).add_settle(delivery.stream, settle)
        self._lag.begin(delivery.claim)

    def forget(self, delivery: Delivery) -> None:
        """The claim ends in another way: how its request ended here does not count."""
        self._endings.pop(delivery.claim, None)
        self._moved.pop(delivery.claim, None)

    def _ending(self, delivery: Delivery) -> Ending:
        return self._endings.setdefault(delivery.claim, Ending())

    def _writer(self, delivery: Delivery) -> Writer:
        return self._writers[delivery.lane % len(self._writers)]

    def _origin_is_gone(self, stream: str) -> None:
        self._gone[stream] = None
        while len(self._gone) > MOST_GONE:
            self._gone.popitem(last=False)
