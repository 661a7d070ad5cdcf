"""Where the phases of each request ran, how its KV cache crossed, and whether that was right."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from inferq.demo.chat import Row, short_name
from inferq.demo.live import printable
from inferq.demo.report import NONE, milliseconds, new_table


def print_crossings(console: Console, rows: Sequence[Row]) -> None:
    """The nodes of each request, and how its KV cache got from the one to the other."""
    table = new_table(
        "where the phases of each request ran, and how its KV cache crossed",
        "request",
        "prefill -> decode",
        "KV bytes",
        "by",
        "crossing ms",
    )
    for row in rows:
        table.add_row(f"#{row.number}", _places(row), *_crossing(row))
    console.print(table)


def print_comparison(console: Console, rows: Sequence[Row], alone: Sequence[Row]) -> None:
    """The times of each request; ``alone`` has the same ones on a single engine, if they ran."""
    table = new_table(
        "what the caller of each request saw",
        "request",
        "tokens",
        "first token ms",
        "total ms",
        "as on a single engine",
    )
    for number, row in enumerate(rows):
        equal = _yes_no(row.token_ids == alone[number].token_ids) if alone else NONE
        table.add_row(f"#{row.number}", str(row.tokens), *_times(row), equal)
    console.print(table)


def find_faults(rows: Sequence[Row], alone: Sequence[Row]) -> list[str]:
    """A sentence for each request that did not cross, or whose answers differ."""
    faults = [_fault(*pair) for pair in zip(rows, alone, strict=True)]
    return [fault for fault in faults if fault is not None]


def _fault(row: Row, alone: Row) -> str | None:
    where = f"#{row.number}"
    for one, place in ((row, "two nodes"), (alone, "a single engine")):
        if one.outcome.end != "finished":
            error = printable(one.outcome.error, one_line=True)
            return f"{where} {one.outcome.end} on {place}: {error}"
    if row.crossing is None or row.crossing.node == row.node:
        return f"{where} was computed by {row.node} alone"
    if row.crossing.nbytes == 0:
        return f"{where} was continued by {row.node} without its KV cache"
    if row.token_ids != alone.token_ids:
        return f"{where} differs from token {_same(row.token_ids, alone.token_ids)} on"
    return None


def _same(left: Sequence[int], right: Sequence[int]) -> int:
    """How many first tokens are the same."""
    pairs = zip(left, right, strict=False)
    shorter = min(len(left), len(right))
    return next((at for at, (one, other) in enumerate(pairs) if one != other), shorter)


def _places(row: Row) -> str:
    if not row.node:
        return NONE
    decode = short_name(row.node)
    return decode if row.crossing is None else f"{short_name(row.crossing.node)} -> {decode}"


def _crossing(row: Row) -> tuple[str, str, str]:
    crossing = row.crossing
    if crossing is None or not crossing.protocol:
        return NONE, NONE, NONE
    return f"{crossing.nbytes:,}", crossing.protocol, milliseconds(crossing.seconds)


def _times(row: Row) -> tuple[str, str]:
    times = row.outcome.timings
    if times is None:
        return NONE, NONE
    return milliseconds(times.ttft_s), milliseconds(times.e2e_s)


def _yes_no(value: bool) -> str:
    return "yes" if value else "NO"
