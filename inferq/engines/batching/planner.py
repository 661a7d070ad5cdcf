"""Chooses what the next step computes: continuous batching with chunked prefill."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from inferq.engines.batching.blocks import BlockPool, blocks_for
from inferq.engines.batching.executor import Limits, Row
from inferq.engines.batching.sequence import Sequence


class Planner:
    """The sequences of an engine, in four states: waiting, running, held, gone.

    Running and held sequences have a slot and blocks. When a running sequence needs a block and
    none is free, the youngest running one gives up its blocks and computes again later; the
    oldest is never preempted by another, so work always ends. A held sequence's KV cache moves in
    or out: it has no rows, and is not preempted.
    """

    def __init__(self, limits: Limits, reserved_output_blocks: int) -> None:
        self.limits = limits
        self.blocks = BlockPool(limits.total_blocks)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._reserved = reserved_output_blocks
        self._slots = list(range(limits.max_slots - 1, -1, -1))

    @property
    def free_slots(self) -> int:
        """Slots left after those that wait for one. Any thread may ask."""
        # A copy in one step: the event loop's thread may change the deque meanwhile.
        waiting = self.waiting.copy()
        return max(0, len(self._slots) - sum(1 for s in waiting if s.slot is None))

    @property
    def free_blocks(self) -> int:
        """Blocks left after what waiting sequences need. Any thread may ask."""
        waiting = self.waiting.copy()
        return max(0, self.blocks.free - sum(self._need(s) for s in waiting))

    def add(self, sequence: Sequence, on_start: Callable[[Sequence], None]) -> None:
        """Take a new sequence; it starts at once when there is room and nobody before it."""
        self.waiting.append(sequence)
        self.start_waiting(on_start)

    def start_waiting(self, on_start: Callable[[Sequence], None]) -> None:
        """Give slots and blocks to those that wait, in order, while there are any."""
        while self.waiting and self._give_room(self.waiting[0]):
            sequence = self.waiting.popleft()
            self.running.append(sequence)
            on_start(sequence)
        self.running.sort(key=lambda s: s.number)

    def hold(self, sequence: Sequence) -> None:
        """A running sequence has no rows until ``resume``."""
        self.running.remove(sequence)

    def resume(self, sequence: Sequence) -> None:
        """A held sequence runs."""
        self.running.append(sequence)
        self.running.sort(key=lambda s: s.number)

    def remove(self, sequence: Sequence) -> None:
        """The sequence is over: its slot and blocks are free again."""
        self.blocks.release(sequence.number)
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence.slot is not None:
            self._slots.append(sequence.slot)
            sequence.slot = None

    def plan(self, on_preempt: Callable[[Sequence], None]) -> list[tuple[Sequence, Row]]:
        """The rows of the next step, oldest first, within ``tokens_per_batch``.

        Decoding sequences come before prefilling ones: a token each costs little and keeps
        every stream flowing.
        """
        self._make_room(on_preempt)
        budget = self.limits.tokens_per_batch
        planned = []
        for sequence in self._decoding_first():
            if budget == 0:
                break
            row = _row(sequence, min(sequence.pending, budget))
            budget -= len(row.tokens)
            planned.append((sequence, row))
        return planned

    def _decoding_first(self) -> Iterator[Sequence]:
        yield from (s for s in self.running if s.pending == 1)
        yield from (s for s in self.running if s.pending > 1)

    def _make_room(self, on_preempt: Callable[[Sequence], None]) -> None:
        for sequence in list(self.running):
            needed = blocks_for(len(sequence.tokens), self.limits.block_size)
            while sequence in self.running and not self.blocks.grow(sequence.number, needed):
                victim = self.running.pop()  # the youngest: running is in order of arrival
                self.blocks.release(victim.number)
                victim.computed = 0
                self.waiting.appendleft(victim)
                on_preempt(victim)

    def _need(self, sequence: Sequence) -> int:
        needed = blocks_for(len(sequence.tokens), self.limits.block_size) + self._reserved
        return min(needed, self.limits.total_blocks)

    def _give_room(self, sequence: Sequence) -> bool:
        if sequence.slot is None and not self._slots:
            return False
        if not self.blocks.grow(sequence.number, self._need(sequence)):
            return False
        if sequence.slot is None:
            sequence.slot = self._slots.pop()
        return True


def _row(sequence: Sequence, length: int) -> Row:
    assert sequence.slot is not None
    start = sequence.computed
    return Row(
        slot=sequence.slot,
        tokens=sequence.tokens[start : start + length],
        position=start,
        samples=length == sequence.pending,
        ban_end=not sequence.answer.may_end,
    )
