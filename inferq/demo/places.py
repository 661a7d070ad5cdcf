"""Where requests ran: the tables of global mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console

from inferq.cluster.view import NodeView
from inferq.demo.chat import Row
from inferq.demo.records import Record
from inferq.demo.report import NONE, milliseconds, new_table


def print_places(
    console: Console, rows: Sequence[Row], where: Callable[[str], str], sent_to: str
) -> None:
    """For each request the node that ran it, and whether that one stole it from ``sent_to``."""
    places = new_table(
        f"where each request ran (all were sent to {sent_to})",
        "request",
        "node",
        "stolen",
        "attempt",
        "tokens",
        "queue ms",
        "first token ms",
    )
    for row in rows:
        node = where(row.request_id)
        stolen = "yes" if node not in ("", sent_to) else ""
        times = (row.record or Record("cancelled")).timings
        shown = [NONE, NONE] if times is None else [*map(milliseconds, times[:2])]
        places.add_row(
            f"#{row.number}", node or NONE, stolen, str(row.attempt), str(row.tokens), *shown
        )
    console.print(places)


def print_nodes(
    console: Console, nodes: Sequence[NodeView], rows: Sequence[Row], where: Callable[[str], str]
) -> None:
    """How many requests each node ran, and how many the others took from its queue."""
    ran = Counter(where(row.request_id) for row in rows)
    tokens: Counter[str] = Counter()
    for row in rows:
        tokens[where(row.request_id)] += row.tokens
    summary = new_table("nodes", "node", "state", "ran", "tokens", "stolen from it")
    for node in nodes:
        cells = (ran[node.name], tokens[node.name], node.stolen)
        summary.add_row(node.name, node.state, *map(str, cells))
    console.print(summary)
