"""The prompts: a file with a JSON object a line, the fields of a request each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

#: A longer line is an error, bytes.
MAX_LINE_BYTES = 16 * 1024 * 1024


class Line(NamedTuple):
    """A line with something on it. ``key`` stays the same when lines are added before it.

    ``error`` says why it is no request.
    """

    number: int
    key: str
    id: str | int | None
    fields: dict[str, Any]
    error: str = ""


def read_lines(path: Path) -> Iterator[Line]:
    """All lines but the empty ones.

    Lines that are equal, or have the same ``id``, are told apart by their order.
    """
    seen: Counter[str] = Counter()
    with path.open("rb") as file:
        for number, raw in enumerate(_raw_lines(file), 1):
            if not raw.strip():
                continue
            line = _parse(number, raw)
            before, seen[line.key] = seen[line.key], seen[line.key] + 1
            yield line._replace(key=f"{line.key}+{before}") if before else line


def _raw_lines(file: BinaryIO) -> Iterator[bytes]:
    while raw := file.readline(MAX_LINE_BYTES + 1):
        rest = raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        yield raw


def _parse(number: int, raw: bytes) -> Line:
    key = hashlib.sha256(raw.strip()).hexdigest()[:24]
    try:
        fields = _fields(raw)
    except (ValueError, RecursionError) as exc:
        return Line(number, key, None, {}, str(exc))
    name = fields.pop("id", None)
    return Line(number, key if name is None else f"id={name}", name, fields)


def _fields(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"is longer than {MAX_LINE_BYTES} bytes")
    fields = json.loads(raw)
    if not isinstance(fields, dict):
        raise ValueError("is no JSON object")
    if "request_id" in fields:
        raise ValueError("request_id: is made by the job; name the line by its id")
    name = fields.get("id")
    if name is not None and (type(name) not in (int, str) or len(str(name)) > 200):
        raise ValueError("id: is no integer, nor text of up to 200 characters")
    return fields
