"""The demo in a process of its own: run to its end, or disturbed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

TIMEOUT_S = 180
COMMAND = (sys.executable, "-W", "error", "-m", "inferq.demo")


def environment() -> dict[str, str]:
    """Ours, without settings of inferq, and with what tempts rich to write control codes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")}
    return {**kept, "FORCE_COLOR": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "40"}


def demo(
    folder: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**environment(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def disturbed(
    folder: Path,
    arguments: tuple[str, ...],
    until: str,
    disturb: Callable[[subprocess.Popen[str]], None],
) -> tuple[int, str, str]:
    """Exit status, later output and errors of a demo that is disturbed after a line with
    ``until``.
    """
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            while until not in process.stdout.readline():
                assert process.poll() is None
            disturb(process)
            output, errors = process.communicate(timeout=TIMEOUT_S)
        except BaseException:
            process.kill()
            raise
    return process.returncode, output, errors


def interrupted(
    folder: Path, arguments: tuple[str, ...], until: str, number: signal.Signals
) -> tuple[int, str, str]:
    """The same, where the demo gets a signal."""
    return disturbed(folder, arguments, until, lambda process: process.send_signal(number))


def nodes_of(demo: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes that a demo has started."""
    return [child for child in psutil.Process(demo.pid).children() if "celery" in child.cmdline()]


def left_over(folder: Path) -> list[psutil.Process]:
    """Processes that a demo has started and not ended: each works in this folder or below."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd().startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found
