"""Global mode: all prompts are sent to one node, and the others steal from it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from inferq.client import AsyncClient
from inferq.demo.chat import Chat, Row
from inferq.demo.cluster import HOST, Cluster, run_cluster, talk
from inferq.demo.drive import INTERRUPTED, stop_on_interrupt
from inferq.demo.engines import node_settings
from inferq.demo.options import GLOBAL_MODE, GlobalOptions, parse_global
from inferq.demo.places import print_nodes, print_places
from inferq.demo.report import print_answers, print_total
from inferq.demo.stage import Stage, look_at_nodes
from inferq.settings import Settings

#: So that a thief leaves nothing to wait: one request more than none is worth stealing.
MIN_LOAD_SCORE = 1


def main(argv: Sequence[str]) -> int:
    """Run the demo; returns the exit status: 0, 1 after an error, 130 after Ctrl-C."""
    options = parse_global(argv)
    cluster = Cluster(
        scheduler=GLOBAL_MODE,
        nodes={f"gpu{number}@{HOST}": () for number in range(options.nodes)},
        settings={
            **node_settings(options, options.slots),
            "scheduler_min_load_score": MIN_LOAD_SCORE,
        },
    )
    headline = f"{options.nodes} nodes, engine {options.engine}, {options.requests} prompts"
    return run_cluster(cluster, headline, _Show(options))


class _Show:
    def __init__(self, options: GlobalOptions) -> None:
        self._options = options

    async def __call__(self, settings: Settings, stage: Stage, console: Console) -> int:
        stop = stop_on_interrupt()
        first = stage.nodes[0].name
        console.print(Text(f"all prompts go to {first}; the others are idle, and steal"))
        started_at = time.monotonic()
        async with AsyncClient(settings, node=first) as client:
            chat = Chat(client, self._options, console, many_nodes=True)
            await talk(chat, stage, console, stop, spare=len(stage.nodes) - 1)
        _report(console, chat.rows, time.monotonic() - started_at, settings, first)
        return INTERRUPTED if stop.is_set() else 0


def _report(
    console: Console, rows: Sequence[Row], wall_s: float, settings: Settings, first: str
) -> None:
    print_answers(console, rows)
    print_places(console, rows, first)
    print_total(console, rows, wall_s)
    print_nodes(console, look_at_nodes(settings), rows)
