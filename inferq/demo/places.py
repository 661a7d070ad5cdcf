"""Where requests ran: the tables of global mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from inferq.cluster.view import NodeView
from inferq.demo.chat import Row
from inferq.demo.report import NONE, milliseconds, new_table


def print_places(console: Console, rows: Sequence[Row], sent_to: str) -> None:
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
        stolen = "yes" if row.node not in ("", sent_to) else ""
        times = row.outcome.timings
        shown = [NONE, NONE] if times is None else [*map(milliseconds, times[:2])]
        cells = (row.node or NONE, stolen, str(row.attempt), str(row.tokens), *shown)
        places.add_row(f"#{row.number}", *cells)
    console.print(places)


def print_nodes(console: Console, nodes: Sequence[NodeView], rows: Sequence[Row]) -> None:
    """How many requests each node ran, and how many the others took from its queue."""
    ran, tokens = Counter[str](), Counter[str]()
    for row in rows:
        ran[row.node] += 1
        tokens[row.node] += row.tokens
    summary = new_table("nodes", "node", "state", "ran", "tokens", "stolen from it")
    for node in nodes:
        cells = (ran[node.name], tokens[node.name], node.stolen)
        summary.add_row(node.name, node.state, *map(str, cells))
    console.print(summary)
