"""What commands write: tables and JSON. What nodes and producers have written is made harmless."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import click

#: A cell is cut at this length, characters.
MAX_CELL = 120

Row = Sequence[object]


def clean(text: str, most: int = MAX_CELL) -> str:
    """A text that cannot do anything to a terminal: what does not print is shown as an escape."""
    shown = "".join(char if char.isprintable() else _escape(char) for char in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def clean_answer(text: str) -> str:
    """The same for the text of an answer, which may have lines and tabs, and is never cut."""
    return "".join(c if c.isprintable() or c in "\n\t" else _escape(c) for c in text)


def print_json(value: Any) -> None:
    """One line of JSON in ASCII."""
    click.echo(as_json(value))


def as_json(value: Any) -> str:
    """Named tuples become objects."""
    return json.dumps(_plain(value))


def print_table(head: Sequence[str], rows: Iterable[Row], *, empty: str) -> None:
    """A table, with rich if it is installed and this is a terminal; ``empty``: what to say else."""
    texts = [[clean(str(cell)) for cell in row] for row in rows]
    if not texts:
        click.echo(empty)
    elif sys.stdout.isatty() and has_rich():
        from rich.console import Console  # noqa: PLC0415

        Console().print(rich_table(head, texts))
    else:
        click.echo(plain_table(head, texts))


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns with two spaces between them; cells must be clean."""
    lines = [list(head), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def rich_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """The same for rich; no cell is read as markup."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def has_rich() -> bool:
    """Whether the extra ``inferq[cli]`` is installed."""
    return find_spec("rich") is not None


def duration(seconds: float | None) -> str:
    """A time as people read it."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 0.1 or seconds == 0 else f"{seconds * 1000:.2g} ms"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _escape(char: str) -> str:
    return (
        char.encode("ascii", "backslashreplace").decode() if ord(char) > 127 else repr(char)[1:-1]
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such numbers
    return value
