"""What a node has not told Redis yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import NamedTuple


class Backlog(NamedTuple):
    """Requests that have ended or gone on, which Redis has not confirmed; since when, seconds."""

    ends: int
    oldest_s: float


class Lag:
    """Knows how long claims have waited for their end to be written. For any thread.

    What was confirmed is forgotten when it is next read, which must happen now and then.
    """

    def __init__(self, unsettled: Callable[[], Collection[int]]) -> None:
        self._unsettled = unsettled
        self._since: dict[int, float] = {}

    def begin(self, claim: int) -> None:
        """The end of a claim waits from now on; after it is among the unsettled."""
        self._since[claim] = time.monotonic()

    def read(self) -> Backlog:
        """What waits at this moment."""
        # In this order: what is noted was unsettled before it was noted.
        noted = list(self._since)
        unsettled = self._unsettled()
        for claim in noted:
            if claim not in unsettled:
                self._since.pop(claim, None)
        now = time.monotonic()
        waits = [now - self._since.get(claim, now) for claim in unsettled]
        return Backlog(len(unsettled), max(waits, default=0.0))
