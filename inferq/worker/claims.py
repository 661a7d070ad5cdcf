"""The live claims of a node, from which all its load is derived."""

from __future__ import annotations

import threading
from enum import Enum, auto

from inferq.routing.admission import AdmissionRule, Load, Size


class Phase(Enum):
    """How far a claim has come."""

    #: Taken from the queue; the engine does not know of it yet.
    CLAIMED = auto()
    #: With the engine, no token yet.
    PREFILL = auto()
    #: Producing tokens.
    DECODE = auto()


class Claim:
    """One message that this node has taken and not yet finished."""

    __slots__ = ("blocks", "is_long", "phase", "prompt_tokens")

    def __init__(self, size: Size, rule: AdmissionRule) -> None:
        self.prompt_tokens = size.prompt_tokens
        self.blocks = rule.blocks(size)
        self.is_long = rule.is_long(size)
        self.phase = Phase.CLAIMED


class Claims:
    """Claims by delivery tag, and sums over those whose prefill has not ended.

    The sums follow from the claims: a claim enters and leaves them exactly once, under one
    lock, whichever way it ends.
    """

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._unseen: set[Claim] = set()
        self._prefilling: set[Claim] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._claims)

    def add(self, delivery_tag: str, claim: Claim) -> None:
        """A message was taken."""
        with self._lock:
            self._claims[delivery_tag] = claim
            self._unseen.add(claim)
            self._prefilling.add(claim)

    def advance(self, delivery_tag: str, phase: Phase) -> None:
        """A claim has come further; what is not claimed here is ignored."""
        with self._lock:
            claim = self._claims.get(delivery_tag)
            if claim is None:
                return
            claim.phase = phase
            self._unseen.discard(claim)
            if phase is Phase.DECODE:
                self._prefilling.discard(claim)

    def remove(self, delivery_tag: str) -> bool:
        """A claim is over; False when it was not (or no longer) one."""
        with self._lock:
            claim = self._claims.pop(delivery_tag, None)
            if claim is None:
                return False
            self._unseen.discard(claim)
            self._prefilling.discard(claim)
            return True

    def load(self) -> Load:
        """What the claims take that the engine's own numbers do not show."""
        with self._lock:
            return Load(
                unseen_blocks=sum(claim.blocks for claim in self._unseen),
                unseen_slots=len(self._unseen),
                prefills=len(self._prefilling),
                long_prefills=sum(claim.is_long for claim in self._prefilling),
                prefill_tokens=sum(claim.prompt_tokens for claim in self._prefilling),
            )
