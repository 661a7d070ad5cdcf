"""Reads traces of real load: Azure's CSV and Mooncake's JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from inferq.demo.workload import Arrival
from inferq.errors import InferqError
from inferq.messages.fields import MAX_OUTPUT_TOKENS

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
AZURE_EXPECTED = f"{AZURE_HEADER} as in 2023-11-16 18:17:03.9799600,4808,10"
MOONCAKE_EXPECTED = (
    'a JSON object with "timestamp" (ms), "input_length" (from 1), "output_length" (from 0, '
    'tokens) and optionally "hash_ids" (integers)'
)
LONGEST_PROMPT = 10_000_000
#: No line of a trace is longer, so a wrong file is refused before it fills the memory.
LONGEST_LINE = 1_000_000


class TraceError(InferqError):
    """Raised when a trace cannot be read; names file, line and what is expected."""

    code = "trace"


def read_trace(path: str, limit: int | None = None) -> list[Arrival]:
    """The first ``limit`` requests of a trace, by arrival; the first one arrives at 0 s.

    Raises:
        TraceError: the file cannot be read, or a line of it is wrong.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            arrivals = list(islice(_parse(path, file), limit))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8 text"
        raise TraceError(f"{path}: cannot be read: {reason}") from None
    if not arrivals:
        raise TraceError(f"{path}: holds no requests; expected {AZURE_HEADER} or JSON lines")
    start_s = min(arrival.at_s for arrival in arrivals)
    moved = [Arrival(a.at_s - start_s, a.prompt_tokens, a.max_tokens, a.hash_ids) for a in arrivals]
    return sorted(moved, key=lambda arrival: arrival.at_s)


def _parse(path: str, file: Any) -> Iterator[Arrival]:
    parse: Callable[[str], Arrival] | None = None
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), 1):
        text = line.strip().removeprefix("\ufeff")
        if not text:
            continue
        if parse is None:
            parse = parse_mooncake if text.startswith("{") else parse_azure
            if parse is parse_azure:
                if text.lower() != AZURE_HEADER.lower():
                    expected = f"the header {AZURE_HEADER}, or {MOONCAKE_EXPECTED}"
                    raise _wrong(path, number, text, expected)
                continue
        try:
            yield parse(text)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            expected = AZURE_EXPECTED if parse is parse_azure else MOONCAKE_EXPECTED
            raise _wrong(path, number, text, expected) from None


def _wrong(path: str, number: int, text: str, expected: str) -> TraceError:
    shown = text if len(text) <= 60 else text[:60] + "..."
    return TraceError(f"{path}, line {number}: expected {expected}; found {shown!r}")


def parse_azure(line: str) -> Arrival:
    """A line of an Azure trace; its time is a UNIX time in seconds. Raises ValueError."""
    stamp, prompt, output = line.split(",")
    at = datetime.fromisoformat(stamp.strip())
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return _arrival(at.timestamp(), int(prompt), int(output))


def parse_mooncake(line: str) -> Arrival:
    """A line of a Mooncake trace; its time is in milliseconds from some start.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    fields = json.loads(line)
    hash_ids = fields.get("hash_ids", []) if isinstance(fields, dict) else None
    if not isinstance(hash_ids, list) or any(type(hash_id) is not int for hash_id in hash_ids):
        raise ValueError("hash_ids")
    at_ms, prompt, output = (
        fields[name] for name in ("timestamp", "input_length", "output_length")
    )
    if type(at_ms) not in (int, float) or type(prompt) is not int or type(output) is not int:
        raise TypeError("numbers")
    return _arrival(at_ms / 1000, prompt, output, tuple(hash_ids))


def _arrival(at_s: float, prompt: int, output: int, hash_ids: tuple[int, ...] = ()) -> Arrival:
    lengths_ok = 1 <= prompt <= LONGEST_PROMPT and 0 <= output <= MAX_OUTPUT_TOKENS
    if not lengths_ok or not math.isfinite(at_s):
        raise ValueError("out of range")
    # A request asks for a token at least.
    return Arrival(at_s, prompt, max(1, output), hash_ids)
