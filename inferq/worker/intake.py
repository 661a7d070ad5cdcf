"""The intake: takes from the queues what the engine has room for, and nothing else."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from kombu.serialization import loads

from inferq.engines.base import Engine
from inferq.errors import InferqError
from inferq.messages import Request
from inferq.messages.headers import SIZE_HEADER
from inferq.routing.admission import AdmissionRule, Budget, Size
from inferq.settings import Settings
from inferq.transport.broker import tag_of
from inferq.transport.gate import RawMessage, Verdict
from inferq.worker.claims import Claim, Claims, Phase

logger = logging.getLogger(__name__)
Wake = Callable[[], None]

ACCEPT = frozenset({"application/json", "application/x-msgpack"})


class Intake:
    """A Gate: one for each node, consulted on the consumer's thread.

    A request that does not fit keeps its place. Smaller ones may pass it for ``pass_by_s``;
    after that nothing behind it is taken until it fits, so it is not starved. ``most``: how many
    claims other bounds than the engine's allow now.
    """

    def __init__(
        self, settings: Settings, engine: Engine, most: Callable[[], int] = lambda: sys.maxsize
    ) -> None:
        self.claims = Claims()
        #: Whether new requests leave this node with their first token.
        self.hands_off = False
        self._most = most
        self.rule = AdmissionRule(settings.admission, engine.capacity())
        self._engine = engine
        self._max_claims = settings.limits.max_claims
        self._wake: Wake = lambda: None
        self._soon: Callable[[Wake], object] = lambda wake: wake()
        self._watching = False
        self._blocked_tag = ""
        self._blocked_since = 0.0

    def connect(self, wake: Wake, soon: Callable[[Wake], object]) -> None:
        """``wake`` makes the consumer look at its queues again; any thread may call it.

        ``soon`` calls a function a moment later: all room that becomes free until then is worth
        one look, not one each.
        """
        self._wake, self._soon = wake, soon

    def open(self) -> Look | None:
        """Begin a look at the queues."""
        # Before capacity is read: room that becomes free from here on must wake us.
        self._watching = True
        load = self.claims.load()
        room = min(self._max_claims, self._most()) - len(self.claims)
        budget = self.rule.budget(self._engine.capacity(), load)
        budget.slots = min(budget.slots, room)
        return Look(self, budget) if budget.has_slots else None

    def never_fits(self, size: Size) -> bool:
        """Whether this node can never do its part of a request."""
        return self.rule.never_fits(size, hands_off=self.hands_off)

    def released(self, delivery_tag: str) -> None:
        """A claim is over."""
        self.claims.remove(delivery_tag)
        self._room()

    def handed(self, delivery_tag: str) -> None:
        """The engine knows of the request and counts it from now on."""
        self.claims.advance(delivery_tag, Phase.PREFILL)
        # A look in between has counted it twice, once here and once in the engine's numbers.
        self._room()

    def prefilled(self, delivery_tag: str) -> None:
        """The request has its first token."""
        self.claims.advance(delivery_tag, Phase.DECODE)
        self._room()

    def _room(self) -> None:
        if self._watching:
            self._watching = False
            self._soon(self._wake)

    def size_of(self, message: RawMessage) -> Size | None:
        """What the request in a message needs; None when it is wrong or can never fit.

        The answer is kept in the message, so each is decoded at most once.
        """
        headers = message["headers"]
        size = _size_from(headers.get(SIZE_HEADER))
        if size is None:
            size = self._measure(message)
            if size is not None:
                headers[SIZE_HEADER] = list(size)
        return size

    def blocked_for(self, delivery_tag: str) -> float:
        """How long this message has been the first that does not fit, seconds."""
        now = time.monotonic()
        if delivery_tag != self._blocked_tag:
            self._blocked_tag, self._blocked_since = delivery_tag, now
        return now - self._blocked_since

    def _measure(self, message: RawMessage) -> Size | None:
        try:
            body = loads(
                message["body"], message["content-type"], message["content-encoding"], accept=ACCEPT
            )
            fields: dict[str, Any] = {k: v for k, v in body[1].items() if k in Request.FIELDS}
            request = Request.parse({**fields, "request_id": "size"})
            return Size(self._engine.count_tokens(request), request.max_tokens)
        except (InferqError, LookupError, TypeError, ValueError, AttributeError):
            return None
        except Exception:
            logger.debug("a message's size cannot be told", exc_info=True)
            return None


class Look:
    """One look at the queues. See ``Gate`` and ``Cycle``."""

    def __init__(self, intake: Intake, budget: Budget) -> None:
        self._intake = intake
        self.budget = budget
        self._passed = 0
        self._reserved = False

    def judge(self, message: RawMessage) -> Verdict:
        """Take what fits, and what no waiting would make fit; pass or stop at the rest."""
        size = self._intake.size_of(message)
        if size is None or self._intake.never_fits(size):
            # The task will say what is wrong; it costs the engine nothing.
            return Verdict.TAKE
        if not self._reserved and self.budget.fits(size):
            self.budget.spend(size)
            self._intake.claims.add(tag_of(message), Claim(size, self._intake.rule))
            return Verdict.TAKE
        return self._leave(message)

    def _leave(self, message: RawMessage) -> Verdict:
        settings = self._intake.rule.settings
        if self._passed == 0 and self._intake.blocked_for(tag_of(message)) >= settings.pass_by_s:
            self._reserved = True
        self._passed += 1
        return Verdict.STOP if self._passed > settings.lookahead else Verdict.PASS


def _size_from(value: Any) -> Size | None:
    if not isinstance(value, (list, tuple)) or len(value) != len(Size._fields):
        return None
    if any(type(number) is not int or number < 1 for number in value):
        return None
    return Size(*value)
