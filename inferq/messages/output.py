"""Outputs: the pieces of an answer, and its end.

They are many and small: named tuples, which msgpack and JSON carry as plain arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from inferq.errors import RequestCancelled, RequestEnded, RequestExpired, RequestFailed

#: How many of an output's fields travel, from the first on.
WIRE_FIELDS = 11


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Timings(NamedTuple):
    """Where the time of a request went on its node, in seconds."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


class Crossing(NamedTuple):
    """How the KV cache of a request came from the node of its prefill to that of its decode.

    ``nbytes`` crossed by ``protocol`` in ``seconds``; nothing is said of what the engines move by
    their own means.
    """

    node: str
    protocol: str = ""
    nbytes: int = 0
    seconds: float = 0.0


class ErrorInfo(NamedTuple):
    """An error as it travels: a stable code and a sentence."""

    code: str
    message: str


class Output(NamedTuple):
    """A piece of an answer.

    ``index`` is the position of its first token in the answer, ``attempt`` counts the times
    the request was started (from 0). The last output has ``finished`` set, with either a
    ``finish_reason`` of stop or length, or an ``error``.

    ``node`` is the node that ended it, in the last output; ``crossing`` where it was prefilled, if
    that was another node.

    ``restarted`` is set by the origin, never on the wire: the request was started again, and the
    new answer is not the old one. It begins with this output; all before it is void.
    """

    request_id: str
    attempt: int = 0
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    token_ids: tuple[int, ...] = ()
    text: str = ""
    finished: bool = False
    finish_reason: str | None = None
    error: ErrorInfo | None = None
    timings: Timings | None = None
    node: str = ""
    crossing: Crossing | None = None
    restarted: bool = False

    def to_wire(self) -> tuple[Any, ...]:
        """A tuple of plain values, for JSON or msgpack."""
        return self[:WIRE_FIELDS]

    @classmethod
    def from_wire(cls, raw: Sequence[Any]) -> Output:
        """Read what ``to_wire`` wrote, treating it as hostile.

        Raises:
            ValueError: what is wrong with it.
        """
        if not isinstance(raw, (list, tuple)) or len(raw) != WIRE_FIELDS:
            raise ValueError(f"an output has {WIRE_FIELDS} fields")
        request_id, attempt, index, token_ids, text, finished, reason, error, timings, *rest = raw
        node, crossing = rest
        if not (isinstance(request_id, str) and isinstance(text, str) and isinstance(node, str)):
            raise ValueError("request_id, text and node are strings")
        if not isinstance(token_ids, (list, tuple)):
            raise ValueError("token_ids is an array")
        for number in (attempt, index, *token_ids):  # a generator would cost three times as much
            if type(number) is not int or number < 0:
                raise ValueError("attempt, index and token_ids are integers from 0 up")
        if type(finished) is not bool:
            raise ValueError("finished is a boolean")
        return cls(
            request_id,
            attempt,
            index,
            tuple(token_ids),
            text,
            finished,
            None if reason is None else FinishReason(reason).value,
            None if error is None else _error_from_wire(error),
            None if timings is None else _timings_from_wire(timings),
            node,
            None if crossing is None else _crossing_from_wire(crossing),
        )


def _error_from_wire(raw: Any) -> ErrorInfo:
    if not isinstance(raw, (list, tuple)) or [type(part) for part in raw] != [str, str]:
        raise ValueError("error is a code and a message")
    return ErrorInfo(*raw)


def _timings_from_wire(raw: Any) -> Timings:
    if not isinstance(raw, (list, tuple)) or len(raw) != len(Timings._fields):
        raise ValueError(f"timings are {len(Timings._fields)} numbers")
    return Timings(*(_number_from_wire("timings", part) for part in raw))


def _crossing_from_wire(raw: Any) -> Crossing:
    if not isinstance(raw, (list, tuple)) or len(raw) != len(Crossing._fields):
        raise ValueError(f"crossing has {len(Crossing._fields)} fields")
    node, protocol, nbytes, seconds = raw
    if not (isinstance(node, str) and isinstance(protocol, str)):
        raise ValueError("crossing: node and protocol are strings")
    if type(nbytes) is not int or nbytes < 0:
        raise ValueError("crossing: bytes are an integer from 0 up")
    return Crossing(node, protocol, nbytes, _number_from_wire("crossing", seconds))


def _number_from_wire(field: str, raw: Any) -> float:
    if type(raw) not in (int, float):
        raise ValueError(f"{field} are numbers")
    try:
        number = float(raw)
    except OverflowError:
        raise ValueError(f"{field} are finite numbers") from None
    if not math.isfinite(number):
        raise ValueError(f"{field} are finite numbers")
    return number


def error_output(
    request_id: str, reason: FinishReason, code: str, message: str, *, attempt: int = 0
) -> Output:
    """The last output of a request that ended without an answer."""
    return Output(
        request_id,
        attempt=attempt,
        finished=True,
        finish_reason=reason.value,
        error=ErrorInfo(code, message),
    )


def ended_error(output: Output) -> RequestEnded | None:
    """The exception that tells a caller of ``output``, or None when it is no error."""
    if output.error is None:
        return None
    if output.finish_reason == FinishReason.CANCELLED:
        return RequestCancelled(output.request_id, output.error.message)
    if output.finish_reason == FinishReason.EXPIRED:
        return RequestExpired(output.request_id, output.error.message)
    return RequestFailed(output.request_id, output.error.message, output.error.code)
