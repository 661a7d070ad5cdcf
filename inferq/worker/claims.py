"""The live claims of a node, from which all its load is derived."""

from __future__ import annotations

from collections import deque
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

    __slots__ = ("blocks", "is_long", "is_prefilled", "phase", "prompt_tokens")

    def __init__(self, size: Size, rule: AdmissionRule, *, is_prefilled: bool = False) -> None:
        self.prompt_tokens = size.prompt_tokens
        #: Another node has computed its prefill.
        self.is_prefilled = is_prefilled
        self.blocks = rule.blocks(size)
        self.is_long = rule.is_long(size)
        self.phase = Phase.CLAIMED


class Claims:
    """Claims by delivery tag, and sums over those whose prefill has not ended.

    Only the consumer's thread changes them; tasks on other threads leave a note, which it
    reads before it looks at the sums. A claim enters and leaves each sum exactly once,
    whichever way it ends, so the sums always follow from the claims.
    """

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._notes: deque[tuple[str, Phase | None]] = deque()
        self._unseen_blocks = self._unseen_slots = 0
        self._prefills = self._long_prefills = self._prefill_tokens = 0

    def __len__(self) -> int:
        return len(self._claims)

    def add(self, delivery_tag: str, claim: Claim) -> None:
        """A message was taken. For the consumer's thread."""
        self._read_notes()  # one that was put back is taken again under the same tag
        self._claims[delivery_tag] = claim
        self._count_unseen(claim, 1)
        self._count_prefill(claim, 1)

    def advance(self, delivery_tag: str, phase: Phase) -> None:
        """A claim has come further. For any thread; what is not claimed here is ignored."""
        self._notes.append((delivery_tag, phase))

    def remove(self, delivery_tag: str) -> None:
        """A claim is over. For any thread; what is not (any more) claimed is ignored."""
        self._notes.append((delivery_tag, None))

    def load(self) -> Load:
        """What the claims take that the engine's own numbers do not show.

        For the consumer's thread.
        """
        self._read_notes()
        return Load(
            self._unseen_blocks,
            self._unseen_slots,
            self._prefills,
            self._long_prefills,
            self._prefill_tokens,
        )

    def _read_notes(self) -> None:
        while self._notes:
            self._apply(*self._notes.popleft())

    def _apply(self, delivery_tag: str, phase: Phase | None) -> None:
        if phase is not None:
            claim = self._claims.get(delivery_tag)
        else:
            claim = self._claims.pop(delivery_tag, None)
        if claim is not None:
            self._move(claim, phase or Phase.DECODE)

    def _move(self, claim: Claim, phase: Phase) -> None:
        before, claim.phase = claim.phase, phase
        if before is Phase.CLAIMED and phase is not Phase.CLAIMED:
            self._count_unseen(claim, -1)
        if before is not Phase.DECODE and phase is Phase.DECODE:
            self._count_prefill(claim, -1)

    def _count_unseen(self, claim: Claim, sign: int) -> None:
        self._unseen_slots += sign
        self._unseen_blocks += sign * claim.blocks

    def _count_prefill(self, claim: Claim, sign: int) -> None:
        if claim.is_prefilled:
            return
        self._prefills += sign
        self._long_prefills += sign * claim.is_long
        self._prefill_tokens += sign * claim.prompt_tokens
