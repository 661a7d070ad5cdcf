"""What is seen of a topic: its nodes and queues at one moment. Anybody may have written it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

#: A node's record that is longer says nothing, bytes.
MAX_RECORD_BYTES = 16_384
#: Reasons of ends, and percentiles, of which a record may speak.
MOST_ENTRIES = 16
#: Texts of a record are cut at this length, characters.
MAX_TEXT = 256

_MOST = 2**63 - 1


class NodeView(NamedTuple):
    """A node at one moment.

    ``lease_s``: until its lease lapses, seconds; negative: it has lapsed; None: it has none.
    ``seen_s``: since it was heard of. ``queued``: in its own queues, of which ``queued_prefill``
    and ``queued_decode`` by phase. ``oldest_s``: age of the oldest request there; None when there
    is none, or none that anybody has looked at. ``claims``: taken and not finished. ``load``: both.
    ``stolen``: taken by others from its queues, ever; ``stole``: taken by it from others.
    ``longest``: the longest request that it takes, tokens; 0 unless it is ready. The rest is what
    the node says of itself: ``ended`` counts requests by how they ended, since it was started;
    ``ttft_ms`` and ``tpot_ms`` are the 50th and 99th percentile, empty before there are any;
    ``kept_kv`` is in bytes; ``stalled_s``: how long its engine has had work without progress.
    """

    name: str
    state: str
    lease_s: float | None
    seen_s: float | None
    queued: int
    claims: int
    stolen: int
    role: str = ""
    host: str = ""
    engine: str = ""
    version: str = ""
    total_blocks: int = 0
    free_blocks: int = 0
    total_slots: int = 0
    free_slots: int = 0
    block_size: int = 0
    pid: int = 0
    running: int = 0
    kept_kv: int = 0
    max_model_len: int = 0
    stalled_s: int = 0
    tokens_per_s: float = 0.0
    prefill_tokens_per_s: float = 0.0
    ended: Mapping[str, int] = {}
    ttft_ms: tuple[float, ...] = ()
    tpot_ms: tuple[float, ...] = ()
    stole: int = 0
    queued_prefill: int = 0
    queued_decode: int = 0
    oldest_s: float | None = None
    longest: int = 0

    @property
    def load(self) -> int:
        """What it has to do, requests."""
        return self.queued + self.claims

    @property
    def live(self) -> bool:
        """Whether it holds a lease."""
        return self.lease_s is not None and self.lease_s > 0


class QueueView(NamedTuple):
    """A queue at one moment.

    ``node``: whose own it is; empty for a shared one. ``lengths``: what waits, by priority step,
    most urgent first (``keys.STEPS``). ``oldest_s``: age of its oldest request; None when it is
    empty, or nobody has looked at what is in it. ``orphaned``: its node is not live, so nobody
    takes from it before another node steals or releases it.
    """

    name: str
    phase: Literal["prefill", "decode"]
    node: str
    lengths: tuple[int, ...]
    oldest_s: float | None
    orphaned: bool = False

    @property
    def length(self) -> int:
        """All that waits."""
        return sum(self.lengths)


#: What a record may say, and of which kind it is.
_KINDS: Mapping[str, type] = {
    "role": str,
    "host": str,
    "engine": str,
    "version": str,
    "total_blocks": int,
    "free_blocks": int,
    "total_slots": int,
    "free_slots": int,
    "block_size": int,
    "pid": int,
    "running": int,
    "kept_kv": int,
    "max_model_len": int,
    "stalled_s": int,
    "tokens_per_s": float,
    "prefill_tokens_per_s": float,
}


def own_words(record: str) -> dict[str, Any]:
    """What a node's record says, as far as it is what it should be."""
    try:
        said = json.loads(record)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, Mapping):
        return {}
    words = {name: _plain(said.get(name), kind) for name, kind in _KINDS.items()}
    words["ended"] = _counts(said.get("ended"))
    words |= {name: _numbers(said.get(name)) for name in ("ttft_ms", "tpot_ms")}
    return {name: value for name, value in words.items() if value is not None}


def _plain(value: Any, kind: type) -> Any:
    if kind is str:
        return value[:MAX_TEXT] if isinstance(value, str) else None
    return _whole(value) if kind is int else _number(value)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST else None


def _number(value: Any) -> float | None:
    if type(value) not in (int, float) or not 0 <= value <= _MOST or not math.isfinite(value):
        return None
    return float(value)


def _counts(value: Any) -> Mapping[str, int] | None:
    if not isinstance(value, Mapping):
        return None
    counts = {name[:MAX_TEXT]: _whole(count) for name, count in list(value.items())[:MOST_ENTRIES]}
    return {name: count for name, count in counts.items() if count is not None}


def _numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = [_number(part) for part in value[:MOST_ENTRIES]]
    return tuple(number for number in numbers if number is not None)
