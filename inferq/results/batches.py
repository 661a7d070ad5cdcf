"""Reads the entries of an origin's stream, treating them as hostile."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from inferq.messages import FinishReason, Output, error_output

logger = logging.getLogger(__name__)

#: Names of an entry's fields: a batch of outputs by a node; an end by somebody else.
OUTPUTS_FIELD = b"o"
END_FIELD = b"end"
_ENDS = (FinishReason.ERROR, FinishReason.CANCELLED, FinishReason.EXPIRED)


def read_entry(fields: Sequence[bytes]) -> Iterator[Output]:
    """The outputs of an entry, given as its names and values in turn.

    What is no output is left out. An entry without outputs is what creates a stream.
    """
    for name, value in zip(fields[::2], fields[1::2], strict=False):
        if name == OUTPUTS_FIELD:
            yield from _outputs_from(value)
        elif name == END_FIELD:
            yield from _end_from(value)


def _outputs_from(blob: bytes) -> Iterator[Output]:
    rows = _unpack(blob)
    if rows is None:
        return
    refused: list[str] = []
    for row in rows:
        try:
            output = Output.from_wire(row)
            if output.error is not None and not output.finished:
                raise ValueError("an error ends its request")
        except (ValueError, TypeError) as exc:
            refused.append(str(exc))
        else:
            yield output
    if refused:
        logger.debug("%d of a batch are no outputs: %s", len(refused), refused[0])


def _end_from(blob: bytes) -> Iterator[Output]:
    row = _unpack(blob)
    if row is None:
        return
    try:
        yield _end(*row)
    except (ValueError, TypeError) as exc:
        logger.debug("an entry is no end: %s", exc)


def _end(request_id: Any, attempt: Any, reason: Any, code: Any, message: Any) -> Output:
    if not all(isinstance(text, str) for text in (request_id, code, message)):
        raise ValueError("request_id, code and message are strings")
    if type(attempt) is not int or attempt < 0:
        raise ValueError("attempt is an integer from 0 up")
    if reason not in _ENDS:
        raise ValueError("reason is error, cancelled or expired")
    return error_output(request_id, FinishReason(reason), code, message, attempt=attempt)


def _unpack(blob: bytes) -> list[Any] | None:
    try:
        rows = msgpack.unpackb(blob)
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        logger.debug("an entry is no msgpack: %s", exc)
        return None
    if not isinstance(rows, list):
        logger.debug("an entry is no list")
        return None
    return rows
