"""Counts that cost a fraction of a microsecond, for numbers that are read now and then."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

Word = TypeVar("Word", bound=Hashable)

#: Words of a counter beyond so many are counted as another one.
MOST_WORDS = 32


class Distribution(NamedTuple):
    """How many values were at most each bound, cumulated; the last one counts all."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class Histogram:
    """Counts values by size. Its owner locks."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> Distribution:
        """What was counted so far."""
        cumulated, below = [], 0
        for count in self._counts:
            below += count
            cumulated.append(below)
        return Distribution(self._bounds, cumulated, self._total)


class Tally(Generic[Word]):
    """Counts by words, of which there are few: those that are known, and ``other`` for those that
    come when there are MOST_WORDS. Its owner locks.
    """

    __slots__ = ("_counts", "_other")

    def __init__(self, known: Sequence[Word], other: Word) -> None:
        self._counts: dict[Word, float] = dict.fromkeys(known, 0)
        self._other = other

    def add(self, word: Word, amount: float = 1) -> None:
        """Count ``amount`` for a word."""
        counts = self._counts
        if word not in counts and len(counts) >= MOST_WORDS:
            word = self._other
        counts[word] = counts.get(word, 0) + amount

    def read(self) -> dict[Word, float]:
        """What was counted so far."""
        return dict(self._counts)
