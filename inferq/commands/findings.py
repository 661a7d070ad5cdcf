"""What a check has found, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import click

from inferq.commands.printing import clean

_STYLES = {"ok": "green", "note": "yellow", "wrong": "red"}


class Finding(NamedTuple):
    """``ok``; a ``note``, to be known; or ``wrong``, to be mended: ``do`` says how."""

    check: str
    level: Literal["ok", "note", "wrong"]
    what: str
    do: str = ""


def print_findings(findings: Sequence[Finding]) -> None:
    """In words, coloured on a terminal."""
    for finding in findings:
        level = click.style(f"{finding.level:<6}", fg=_STYLES[finding.level])
        click.echo(f"{level} {finding.check + ':':<13} {clean(finding.what, 400)}")
        if finding.do:
            click.echo(f"{'':>21}-> {clean(finding.do, 400)}")
