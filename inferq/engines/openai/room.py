"""What is free at the server: what it measures, and what was sent since."""

from __future__ import annotations

from inferq.engines.base import Capacity
from inferq.engines.openai.metrics import ServerLoad


class Ticket:
    """The room of one request. ``seen``: the server's measurements contain it."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.seen = False


class Room:
    """Counts slots and blocks. All methods are for the event loop; ``now`` is for any thread."""

    def __init__(self, limits: Capacity) -> None:
        self._limits = limits
        self._live: set[Ticket] = set()
        self._is_up = True
        self._others = 0
        self._used: int | None = None
        self.now = limits
        self._refresh()

    def enter(self, prompt_tokens: int, reserved_blocks: int) -> Ticket:
        """A request has come."""
        blocks = -(-prompt_tokens // self._limits.block_size) + reserved_blocks
        ticket = Ticket(min(blocks, self._limits.total_blocks))
        self._live.add(ticket)
        self._refresh()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """It is over. A second call does nothing."""
        if ticket not in self._live:
            return
        self._live.discard(ticket)
        if ticket.seen and self._used is not None:  # the next measurement will say it exactly
            self._used = max(0, self._used - ticket.blocks)
        self._refresh()

    def mark(self) -> frozenset[Ticket]:
        """What a measurement that is asked for now will contain."""
        return frozenset(self._live)

    def measured(self, load: ServerLoad | None, contained: frozenset[Ticket]) -> None:
        """The server is there; ``load`` is what it says, if it says something."""
        self._is_up = True
        if load is not None:
            self._others = max(0, load.requests - len(contained))
            self._measure_blocks(load, contained)
        self._refresh()

    def lost(self) -> None:
        """The server is not there: nothing is free until it is measured again."""
        self._is_up = False
        self._refresh()

    @property
    def is_up(self) -> bool:
        """Whether the server was there when it was last asked."""
        return self._is_up

    def _measure_blocks(self, load: ServerLoad, contained: frozenset[Ticket]) -> None:
        if load.usage is None:
            return
        self._used = round(load.usage * self._limits.total_blocks)
        for ticket in contained:
            ticket.seen = True

    def _refresh(self) -> None:
        limits = self._limits
        slots = blocks = 0
        if self._is_up:
            slots = limits.total_slots - len(self._live) - self._others
            sent = sum(ticket.blocks for ticket in self._live if not ticket.seen)
            blocks = limits.total_blocks - sent - (self._used or 0)
        self.now = limits._replace(free_slots=max(0, slots), free_blocks=max(0, blocks))
