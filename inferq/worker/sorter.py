"""What becomes of messages a node has just claimed: run, returned, or dead letters."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Container

from inferq.cluster.keys import stream_of
from inferq.cluster.topic import Adoption, Burial, Look, Return, Taken, Topic
from inferq.results.outbox import StreamOutbox
from inferq.routing.admission import Budget, Size
from inferq.transport.deliveries import Deliveries, Delivery
from inferq.transport.gate import RawMessage
from inferq.worker.claimed import Malformed, read_claimed
from inferq.worker.claims import Claim
from inferq.worker.intake import Intake

logger = logging.getLogger(__name__)


class Sorter:
    """For the taker's thread. Every claim leaves in exactly one way.

    ``dismiss``: ends the half of a request that is computed here beside another node. ``buried``:
    the reason of each dead letter.
    """

    def __init__(
        self,
        topic: Topic,
        node: str,
        intake: Intake,
        deliveries: Deliveries,
        outbox: StreamOutbox,
        tasks: Container[str],
        dismiss: Callable[[str], None] = lambda _: None,
        buried: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._topic = topic
        self._node = node
        self._intake = intake
        self._deliveries = deliveries
        self._outbox = outbox
        self._tasks = tasks
        self._dismiss, self._buried = dismiss, buried

    def sort(self, inc: str, look: Look, budget: Budget) -> bool:
        """Deliver what fits; messages without sizes are measured, and returned if they do not.

        Returns whether any was returned to its queue.
        Raises one of AWAY or Fenced; what was not delivered then is returned by recovery.
        """
        burials: list[Burial] = []
        read: dict[int, tuple[Taken, RawMessage]] = {}
        for taken in look.taken:
            try:
                message = read_claimed(taken, look.now_ms, self._tasks)
                read[taken.claim] = taken, message
            except Malformed as exc:
                burials.append(Burial(taken.claim, "malformed", str(exc)))
        burials += self._adopt(inc, read)
        returns = self._deliver(read, budget)
        if burials:
            logger.warning("dead letters: %s", "; ".join(b.detail for b in burials[:3]))
            self._topic.bury(self._node, inc, burials)
            for burial in burials:
                self._buried(burial.reason)
        if returns:
            self._topic.put_back(self._node, inc, returns)
        return bool(returns)

    def _adopt(self, inc: str, read: dict[int, tuple[Taken, RawMessage]]) -> list[Burial]:
        """Make the ids of stock producers' messages known, so that they can be cancelled."""
        stock = [
            Adoption(claim, message["headers"]["id"], message["properties"]["reply_to"])
            for claim, (taken, message) in read.items()
            if not taken.request_id
        ]
        if not stock:
            return []
        burials = []
        for adoption, verdict in zip(stock, self._topic.adopt(self._node, inc, stock), strict=True):
            if verdict != "ok":
                del read[adoption.claim]
            if verdict == "duplicate":
                detail = f"id {adoption.request_id} belongs to a request that has not ended"
                burials.append(Burial(adoption.claim, "duplicate", detail))
        return burials

    def _deliver(self, read: dict[int, tuple[Taken, RawMessage]], budget: Budget) -> list[Return]:
        returns = []
        for taken, message in read.values():
            request_id = message["headers"]["id"]
            if self._deliveries.find(request_id) is not None:
                # An earlier attempt leaves the engine a moment later.
                self._dismiss(request_id)
                returns.append(Return(taken.claim, False))
                continue
            size = self._intake.size_of(message)
            if size is not None and not taken.prompt_tokens and self._is_for_later(size, budget):
                returns.append(Return(taken.claim, False, *size))
                continue
            if size is not None and not self._intake.never_fits(size):
                self._count(message, size, budget, taken.queue == self._topic.decode_base)
            self._hand_over(taken, message)
        self._deliveries.flush()
        return returns

    def _is_for_later(self, size: Size, budget: Budget) -> bool:
        """Whether a message that the script could only guess the size of is to be judged again.

        One that this node can never hold may fit another one: the script knows all nodes.
        """
        return self._intake.never_fits(size) or not budget.fits(size)

    def _count(self, message: RawMessage, size: Size, budget: Budget, is_prefilled: bool) -> None:
        budget.spend(size, is_prefilled=is_prefilled)
        tag = message["properties"]["delivery_tag"]
        claim = Claim(size, self._intake.rule, is_prefilled=is_prefilled)
        self._intake.claims.add(tag, claim)

    def _hand_over(self, taken: Taken, message: RawMessage) -> None:
        properties = message["properties"]
        request_id = message["headers"]["id"]
        origin = properties["reply_to"]
        delivery = Delivery(
            properties["delivery_tag"],
            taken.claim,
            request_id,
            taken.attempt,
            origin,
            stream_of(self._topic.prefix, origin, request_id) or "",
            zlib.crc32(origin.encode("utf-8", "surrogatepass")),
        )
        self._outbox.expect(delivery)
        self._deliveries.add(delivery, message)
