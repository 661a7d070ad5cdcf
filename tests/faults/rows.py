"""Reads what a producer process wrote, and checks it."""

from __future__ import annotations

import json
from typing import Any

from inferq import Output
from tests.faults.answers import check_outputs
from tests.faults.processes import Process


def rows(process: Process, kind: str = "") -> list[list[Any]]:
    """What a producer wrote so far: rows of one kind, or all."""
    found = []
    for line in process.log().splitlines(keepends=True):
        if line.startswith("[") and line.endswith("\n"):
            row = json.loads(line)
            if kind in ("", row[0]):
                found.append(row[1:] if kind else row)
    return found


def check_producer(process: Process, count: int, tokens: int) -> None:
    """Each of its requests ended once, with its whole answer."""
    by_id: dict[str, list[Output]] = {}
    for fields in rows(process, "output"):
        output = Output(*fields)
        by_id.setdefault(output.request_id, []).append(output)
    assert rows(process, "failed") == []
    assert len(by_id) == count, process.tail()
    for outputs in by_id.values():
        check_outputs(outputs, tokens)
