"""What is kept of requests that have ended: where they ran, how long, how they ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from inferq.cluster.answers import text
from inferq.cluster.keys import quoted, unquoted
from inferq.cluster.topic import Topic
from inferq.messages import Output

#: Stories that are read at once, at most.
MOST_STORIES = 1_000
#: A search looks at this many ended requests, and at so many in one call.
MOST_SEARCHED = 50_000
_A_CALL = 1_000
_MAX_TEXT = 256


class Story(NamedTuple):
    """The life of a request that has ended.

    ``ended_at``: UNIX seconds by Redis' clock. ``finish_reason``: stop, length, error, cancelled
    or expired; ``error_code`` says which error. ``attempt``: how often it was started before.
    ``tokens``: of the answer. ``queue_s``, ``prefill_s``, ``decode_s``: where the time went,
    seconds. ``node``: which one ended it; ``prefill_node``: where it was prefilled, if that was
    another one, with how its KV cache came over: ``kv_bytes`` by ``protocol`` in ``transfer_s``.
    """

    request_id: str
    ended_at: float
    finish_reason: str = ""
    error_code: str = ""
    attempt: int = 0
    tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    node: str = ""
    prefill_node: str = ""
    protocol: str = ""
    kv_bytes: int = 0
    transfer_s: float = 0.0


class Stories:
    """The ended requests of a topic. For one thread. Every method raises one of link.AWAY."""

    def __init__(self, topic: Topic) -> None:
        self._link = topic.link
        self._prefix = topic.prefix
        self._key = f"{topic.prefix}ended"

    def latest(self, count: int = 50) -> list[Story]:
        """Those that have ended last, the newest first; at most MOST_STORIES."""
        count = max(1, min(count, MOST_STORIES))
        entries = self._link.call("XREVRANGE", self._key, "+", "-", "COUNT", count)
        stories = []
        for entry, flat in entries:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            request_id = unquoted(text(fields.get(b"id", b"")))
            stories.append(_read(request_id, entry, fields.get(b"story", b"")))
        return stories

    def find(self, request_id: str) -> Story | None:
        """The last end of a request, among the newest MOST_SEARCHED; None when it is not there."""
        before = b""
        for _ in range(0, MOST_SEARCHED, _A_CALL):
            _, entry, story, before = self._link.run(
                "stories",
                {
                    "prefix": self._prefix,
                    "id": quoted(request_id),
                    "before": before,
                    "most": _A_CALL,
                },
            )
            if entry:
                return _read(request_id, entry, story)
            if not before:
                return None
        return None


def pack_story(last: Output | None) -> bytes:
    """What is noted of a request that has ended, from its last output."""
    if last is None:
        return b""
    fields: tuple[Any, ...] = (
        last.finish_reason or "",
        last.error.code if last.error is not None else "",
        last.attempt,
        last.index + len(last.token_ids),
        last.timings or (),
        last.node,
        last.crossing or (),
    )
    packed: bytes = msgpack.packb(fields, unicode_errors="surrogatepass")
    return packed


def _read(request_id: str, entry: bytes, packed: bytes) -> Story:
    """A story as ``pack_story`` has written it; of anything else, what makes sense."""
    ended_at = int(entry.partition(b"-")[0]) / 1000
    try:
        fields = msgpack.unpackb(packed, unicode_errors="replace")
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        fields = ()
    reason, code, attempt, tokens, timings, node, crossing = _of_length(fields, 7)
    queue_s, prefill_s, decode_s = map(_number, _of_length(timings, 3))
    prefill_node, protocol, nbytes, transfer_s = _of_length(crossing, 4)
    return Story(
        request_id=request_id,
        ended_at=ended_at,
        finish_reason=_string(reason),
        error_code=_string(code),
        attempt=_whole(attempt),
        tokens=_whole(tokens),
        queue_s=queue_s,
        prefill_s=prefill_s,
        decode_s=decode_s,
        node=_string(node),
        prefill_node=_string(prefill_node),
        protocol=_string(protocol),
        kv_bytes=_whole(nbytes),
        transfer_s=_number(transfer_s),
    )


def _of_length(value: Any, length: int) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) and len(value) == length else (None,) * length


def _string(value: Any) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        return 0.0
    return float(value)
