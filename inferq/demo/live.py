"""The screen: redrawn in a terminal, plain lines anywhere else."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from inferq.schedulers.base import Counts

PLAIN_WIDTH = 120
PLAIN_LINE_EVERY_S = 1.0
#: An engine without a KV cache calls its room endless.
ENDLESS_BLOCKS = 10**9


def make_console(*, stderr: bool = False) -> Console:
    """A console that writes no control codes unless a terminal reads them."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    if stream.isatty():
        return Console(stderr=stderr, highlight=False)
    return Console(
        stderr=stderr,
        highlight=False,
        force_terminal=False,
        color_system=None,
        width=PLAIN_WIDTH,
        soft_wrap=True,
    )


def print_error(error: Exception, detail: str = "") -> None:
    """One line for what went wrong, and what a process said about it, on standard error."""
    console = make_console(stderr=True)
    console.print(Text(f"error: {' '.join(str(error).split())}"), soft_wrap=True)
    if detail:
        console.print(Text(printable(detail)), soft_wrap=True)


def printable(text: str, *, one_line: bool = False) -> str:
    """A model's text without the characters that would steer the terminal."""
    if one_line:
        text = " ".join(text.split())
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


class Screen:
    """Shows ``draw()`` in a terminal; elsewhere ``line()``, once a second, if given."""

    def __init__(
        self,
        console: Console,
        draw: Callable[[], RenderableType],
        line: Callable[[], str] | None = None,
    ) -> None:
        self._console = console
        self._draw = draw
        self._line = line
        self.live = console.is_terminal and not console.is_dumb_terminal
        self._next_line_at = time.monotonic() + PLAIN_LINE_EVERY_S
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.live:
            self._live = Live(console=self._console, auto_refresh=False, get_renderable=self._draw)
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.refresh()
            self._live.stop()

    @property
    def width(self) -> int:
        """Characters in a line."""
        return self._console.width

    def refresh(self) -> None:
        """Redraw, or write a line when the last one is old enough."""
        if self._live is not None:
            self._live.refresh()
        elif self._line is not None and time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + PLAIN_LINE_EVERY_S
            self.write(self._line())

    def write(self, line: str) -> None:
        """Write a plain line; does nothing in a terminal, which shows it all anyway."""
        if not self.live:
            self._console.print(Text(line), soft_wrap=True)


def kv_text(counts: Counts) -> str:
    """Blocks of KV cache in use, of all."""
    if counts.total_blocks >= ENDLESS_BLOCKS:
        return "no KV cache"
    used = counts.total_blocks - counts.free_blocks
    return f"KV {used}/{counts.total_blocks} blocks"


def gauges(counts: Counts) -> RenderableType:
    """Queue length, running requests, and how full the KV cache is."""
    grid = Table.grid(padding=(0, 2))
    endless = counts.total_blocks >= ENDLESS_BLOCKS
    used = 0 if endless else counts.total_blocks - counts.free_blocks
    grid.add_row(
        f"queue [bold]{counts.waiting}[/]",
        f"running [bold]{counts.running}[/]",
        kv_text(counts),
        ProgressBar(total=1 if endless else max(1, counts.total_blocks), completed=used, width=24),
    )
    return grid
