"""Rows as scripts take and return them."""

from __future__ import annotations

from typing import Any

from inferq.cluster.answers import text
from inferq.cluster.keys import quoted, unquoted
from inferq.cluster.rows import Item, Placed, Taken, Target

#: Nothing lives longer; what asks for more gets this, seconds.
MAX_TTL_S = 10 * 365 * 86_400


def to_row(item: Item) -> tuple[Any, ...]:
    """A request for the script ``submit``."""
    ttl_ms = int(min(MAX_TTL_S, max(0.001, item.ttl_s)) * 1000)
    sizes = item.prompt_tokens, item.max_tokens
    return item.message, quoted(item.request_id), item.step, ttl_ms, *sizes


def read_placed(node: bytes, load: float) -> Placed:
    """Where a message went."""
    return Placed(text(node), load)


def read_taken(
    claim: int, attempt: int, again: bool, source: bytes, quoted_id: bytes, *rest: Any
) -> Taken:
    """A claim, as the script ``claim`` returns it."""
    prompt, answer, submitted_ms, deadline_ms, queue, raw = rest
    return Taken(
        claim,
        attempt,
        bool(again),
        text(source),
        unquoted(text(quoted_id)),
        prompt,
        answer,
        submitted_ms,
        deadline_ms,
        text(queue),
        raw,
    )


def needed_tokens(item: Item) -> int:
    """Tokens that a node of the first phase needs room for, as far as they are known."""
    return item.prompt_tokens + 1  # a prefill node needs room for the first token only


class Placements:
    """The distinct targets of a call, each said once."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._numbers: dict[tuple[Any, ...], int] = {}
        self.rows: list[tuple[Any, ...]] = []

    def add(self, target: Target | None, tokens: int, base: str = "") -> int:
        """The number of a target, from 1; 0 for the shared queue."""
        if target is None or not target.names:
            return 0
        row = (base or self._base, *target, tokens)
        number = self._numbers.get(row)
        if number is None:
            self.rows.append(row)
            number = self._numbers[row] = len(self.rows)
        return number
