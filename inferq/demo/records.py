"""What became of each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferq.client import AsyncHandle
from inferq.errors import InferqError, QueueFull, RequestCancelled, RequestEnded, RequestExpired
from inferq.results.reply import ResultTimings

#: The ways to end, in the order they are reported. Refused: the queue was full.
ENDS = ("finished", "failed", "expired", "cancelled", "refused")


@dataclass(frozen=True)
class Record:
    """A request that has ended; ``tokens`` is the length of its answer.

    ``timings`` (seconds) is None when there is no answer; ``error`` then says why.
    """

    end: str
    tokens: int = 0
    text: str = ""
    timings: ResultTimings | None = None
    error: str = ""


async def record_end(handle: AsyncHandle) -> Record:
    """Wait for the end of a request, whichever it is."""
    try:
        result = await handle.result()
    except InferqError as exc:
        return failed_record(exc)
    return Record("finished", len(result.token_ids), result.text, result.timings)


def failed_record(error: InferqError) -> Record:
    """The record of a request that ended with ``error``, or was never taken because of it."""
    kinds: tuple[tuple[type[InferqError], str], ...] = (
        (RequestCancelled, "cancelled"),
        (RequestExpired, "expired"),
        (QueueFull, "refused"),
    )
    end = next((end for kind, end in kinds if isinstance(error, kind)), "failed")
    error_text = error.message if isinstance(error, RequestEnded) else str(error)
    return Record(end, error=error_text)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of ``values`` lie, interpolated linearly."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
