"""A queue in memory: first come, first served within a priority, through every put-back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from inferq.messages import PRIORITIES
from inferq.transport.gate import Cycle, RawMessage, Verdict


class Entry(NamedTuple):
    """A message and its place: numbers grow in the order of first arrival.

    ``arrived_at``: when that was, on the monotonic clock, seconds.
    """

    number: int
    priority: int
    message: RawMessage
    arrived_at: float = 0.0


class MemoryQueue:
    """Messages by priority (0 first), then by number. Not thread-safe: its broker locks."""

    def __init__(self) -> None:
        self._levels: list[OrderedDict[int, Entry]] = [OrderedDict() for _ in range(PRIORITIES)]
        self._by_id: dict[str, Entry] = {}

    def __len__(self) -> int:
        return sum(len(level) for level in self._levels)

    def __iter__(self) -> Iterator[Entry]:
        for level in self._levels:
            yield from level.values()

    def put(self, entry: Entry) -> None:
        """Add a message at the place that its number gives it."""
        level = self._levels[entry.priority]
        is_put_back = bool(level) and entry.number < next(reversed(level))
        level[entry.number] = entry
        request_id = task_id(entry.message)
        if request_id is not None:
            self._by_id[request_id] = entry
        if is_put_back:
            self._restore_order(level, entry.number)

    def take(self, cycle: Cycle | None) -> Entry | None:
        """Remove and return the first message that the cycle lets through."""
        chosen = self.first() if cycle is None else self._first_judged(cycle)
        if chosen is not None:
            self._remove(chosen)
        return chosen

    def first(self) -> Entry | None:
        """The message that is next in order; it stays."""
        return next(iter(self), None)

    def remove(self, request_id: str) -> bool:
        """Remove the message of a request; False when it is not here."""
        entry = self._by_id.get(request_id)
        if entry is None:
            return False
        self._remove(entry)
        return True

    def clear(self) -> int:
        """Remove all messages; returns how many there were."""
        count = len(self)
        for level in self._levels:
            level.clear()
        self._by_id.clear()
        return count

    def _first_judged(self, cycle: Cycle) -> Entry | None:
        for entry in self:
            verdict = cycle.judge(entry.message)
            if verdict is Verdict.TAKE:
                return entry
            if verdict is Verdict.STOP:
                return None
        return None

    def _remove(self, entry: Entry) -> None:
        del self._levels[entry.priority][entry.number]
        request_id = task_id(entry.message)
        if request_id is not None and self._by_id.get(request_id) is entry:
            del self._by_id[request_id]

    @staticmethod
    def _restore_order(level: OrderedDict[int, Entry], number: int) -> None:
        """A put-back was added last but belongs near the head, after those before it."""
        earlier = list(takewhile(lambda other: other < number, level))
        if len(earlier) == len(level) - 1:
            return
        level.move_to_end(number, last=False)
        for other in reversed(earlier):
            level.move_to_end(other, last=False)


def task_id(message: RawMessage) -> str | None:
    """The id of the task in a message; None for what is no task (events, control)."""
    headers = message.get("headers")
    value = headers.get("id") if isinstance(headers, dict) else None
    return value if isinstance(value, str) else None
