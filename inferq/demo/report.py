"""The tables at the end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from inferq.demo.chat import Row
from inferq.demo.live import printable
from inferq.demo.records import ENDS, Record, percentile

SHARES = (0.5, 0.9, 0.99)
#: Less than this is not worth a note.
LATE_FROM_S = 0.25
#: Stands in a cell for what is not there.
NONE = "-"


def milliseconds(seconds: float) -> str:
    """For a cell of a table."""
    return f"{seconds * 1000:.1f}"


def new_table(title: str, *columns: str) -> Table:
    """An empty table; all columns but the first are of numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def total_line(records: Sequence[Record], wall_s: float) -> str:
    """How many requests ended in which way, and the throughput of the run."""
    ends = Counter(record.end for record in records)
    shown = ", ".join(f"{ends[end]} {end}" for end in ENDS if ends[end] or end != "refused")
    tokens = sum(record.tokens for record in records)
    wall_s = max(wall_s, 1e-9)
    return (
        f"total: {len(records)} requests in {wall_s:.1f} s ({shown}), {tokens} tokens, "
        f"{len(records) / wall_s:.1f} requests/s, {tokens / wall_s:.1f} tokens/s"
    )


def print_answers(console: Console, rows: Sequence[Row]) -> None:
    """Each prompt with its whole answer."""
    for row in rows:
        console.print(Rule(f"#{row.number}", align="left", characters="-"))
        console.print(Text(row.prompt, style="bold"))
        console.print(Text(printable(row.text.strip())))
        if row.record is not None and row.record.error:
            console.print(Text(f"({row.record.end}: {printable(row.record.error)})", style="red"))


def print_requests(console: Console, rows: Sequence[Row], wall_s: float) -> None:
    """A line of times for each request, and the total."""
    table = new_table(
        "times of each request",
        "request",
        "end",
        "tokens",
        "queue ms",
        "first token ms",
        "per token ms",
        "tokens/s",
    )
    for row in rows:
        record = row.outcome
        cells = [NONE] * 4
        if record.timings is not None:
            times = record.timings
            per_s = record.tokens / max(times.e2e_s, 1e-9)
            cells = [
                *map(milliseconds, (times.queue_s, times.ttft_s, times.tpot_s)),
                f"{per_s:.1f}",
            ]
        table.add_row(f"#{row.number}", record.end, str(row.tokens), *cells)
    console.print(table)
    print_total(console, rows, wall_s)


def print_total(console: Console, rows: Sequence[Row], wall_s: float) -> None:
    """A line about all of them."""
    console.print(Text(total_line([row.outcome for row in rows], wall_s)), soft_wrap=True)


def percentile_rows(records: Sequence[Record]) -> list[tuple[str, list[float]]]:
    """Name and p50, p90, p99 in seconds of each time of the requests that finished.

    The time per output token is that of requests with two tokens at least.
    """
    done = [(record.tokens, record.timings) for record in records if record.timings is not None]
    columns = (
        ("queue", [times.queue_s for _, times in done]),
        ("time to first token", [times.ttft_s for _, times in done]),
        ("time per output token", [times.tpot_s for tokens, times in done if tokens > 1]),
        ("end to end", [times.e2e_s for _, times in done]),
    )
    return [
        (name, [percentile(values, share) for share in SHARES])
        for name, values in columns
        if values
    ]


def print_load(
    console: Console, records: Sequence[Record], *, wall_s: float, late_s: float, speedup: float
) -> None:
    """Percentiles of the times, the totals, and what to know when reading them."""
    table = new_table("times of finished requests", "ms", "p50", "p90", "p99")
    for name, values in percentile_rows(records):
        table.add_row(name, *map(milliseconds, values))
    if table.row_count:
        console.print(table)
    errors = Counter(record.error for record in records if record.end == "failed")
    for error, count in errors.most_common(3):
        console.print(Text(f"failed {count} times: {printable(error, one_line=True)}"))
    console.print(Text(total_line(records, wall_s)), soft_wrap=True)
    note = f"times as measured, at speedup {speedup:g}"
    if late_s > LATE_FROM_S and math.isfinite(speedup):
        note += f"; requests were submitted up to {late_s:.1f} s after their arrival"
    console.print(Text(note), soft_wrap=True)
