"""``top``: nodes and queues, as they change."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
from redis.exceptions import AuthenticationError

from inferq.cluster.letters import Letters
from inferq.cluster.link import AWAY
from inferq.cluster.topic import Topic
from inferq.cluster.view import NodeView, QueueView, View
from inferq.commands.call import Call, command, place_of
from inferq.commands.keyboard import Keys, keyboard
from inferq.commands.looking import (
    NODES_HEAD,
    QUEUES_HEAD,
    node_fields,
    node_row,
    queue_fields,
    queue_row,
)
from inferq.commands.printing import clean, has_rich, plain_table, print_json, rich_table

#: Rows that are shown, the most loaded nodes and the longest queues.
MOST_ROWS = 100
_CLEAR = "\x1b[H\x1b[2J"


class Frame(NamedTuple):
    """What is shown at one moment."""

    at: float
    topic: str
    nodes: list[NodeView]
    queues: list[QueueView]
    letters: int

    @property
    def title(self) -> str:
        """The first line."""
        live = [node for node in self.nodes if node.live]
        waiting = sum(queue.length for queue in self.queues)
        running = sum(node.claims for node in self.nodes)
        rate = sum(node.tokens_per_s for node in live)
        clock = time.strftime("%H:%M:%S", time.localtime(self.at))
        return (
            f"{self.topic}  {clock}  {len(live)}/{len(self.nodes)} nodes live  "
            f"{waiting} waiting  {running} running  {rate:.0f} tokens/s  "
            f"{self.letters} dead letters"
        )

    def tables(self) -> list[tuple[tuple[str, ...], list[list[str]]]]:
        """The nodes with the most to do first, then the longest queues."""
        nodes = sorted(self.nodes, key=lambda node: (not node.live, -node.load, node.name))
        queues = sorted(self.queues, key=lambda queue: -queue.length)
        return [
            (NODES_HEAD, [_texts(node_row(node)) for node in nodes[:MOST_ROWS]]),
            (QUEUES_HEAD, [_texts(queue_row(queue)) for queue in queues[:MOST_ROWS]]),
        ]


@command("top")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after so many looks.")
def top(call: Call, interval: float, count: int | None) -> None:
    """Nodes and queues, again and again. Ends with q or Ctrl-C."""
    with call.topic() as topic, keyboard() as keys:
        frames = _frames(call, topic, keys, interval, count)
        try:
            if call.as_json:
                _print_lines(frames)
            elif sys.stdout.isatty() and has_rich():
                _show_live(frames)
            else:
                _print_frames(frames)
        except KeyboardInterrupt:
            return


def _frames(
    call: Call, topic: Topic, keys: Keys, interval_s: float, count: int | None
) -> Iterator[Frame | str]:
    """Look, and wait between looks; a string says why nothing can be seen at the moment.

    That the first look fails is an error.
    """
    view, letters = View(topic), Letters(topic)
    looks = 0
    while True:
        try:
            yield Frame(
                time.time(),
                topic.settings.scheduler_topic,
                view.nodes(),
                view.queues(),
                letters.count(),
            )
        except AuthenticationError:  # a ConnectionError to redis-py
            raise
        except AWAY as exc:
            if looks == 0:
                raise
            yield f"Redis at {place_of(call.settings)} does not answer: {type(exc).__name__}"
        looks += 1
        if looks == count or keys.pressed("qQ", interval_s):
            return


def _show_live(frames: Iterator[Frame | str]) -> None:
    from rich.live import Live  # noqa: PLC0415

    with Live(screen=True, auto_refresh=False) as live:
        for frame in frames:
            live.update(_rich(frame), refresh=True)


def _rich(frame: Frame | str) -> Any:
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if isinstance(frame, str):
        return Text(clean(frame, 200), style="bold red")
    parts: list[Any] = [Text(clean(frame.title, 200), style="bold"), Text()]
    for head, rows in frame.tables():
        parts += [rich_table(head, rows), Text()]
    return Group(*parts, Text("q: quit", style="dim"))


def _print_frames(frames: Iterator[Frame | str]) -> None:
    for frame in frames:
        if sys.stdout.isatty():
            click.echo(_CLEAR, nl=False)
        if isinstance(frame, str):
            click.echo(clean(frame, 200))
            continue
        click.echo(clean(frame.title, 200))
        for head, rows in frame.tables():
            click.echo(f"\n{plain_table(head, rows)}")
        click.echo()


def _print_lines(frames: Iterator[Frame | str]) -> None:
    for frame in frames:
        print_json({"error": frame} if isinstance(frame, str) else _fields(frame))
        sys.stdout.flush()


def _fields(frame: Frame) -> dict[str, Any]:
    nodes, queues = map(node_fields, frame.nodes), map(queue_fields, frame.queues)
    return {**frame._asdict(), "nodes": list(nodes), "queues": list(queues)}


def _texts(row: Any) -> list[str]:
    return [clean(str(cell)) for cell in row]
