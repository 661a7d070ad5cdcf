"""Single keys from a terminal, without waiting for a line end."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Keys(Protocol):
    """Where keys come from."""

    def pressed(self, keys: str, timeout_s: float) -> bool:
        """Wait until one of the keys was pressed; False when none was in time."""


class _Terminal:
    def __init__(self, fileno: int) -> None:
        self._fileno = fileno

    def pressed(self, keys: str, timeout_s: float) -> bool:
        gives_up_at = time.monotonic() + timeout_s
        while (left_s := gives_up_at - time.monotonic()) > 0:
            if not select.select([self._fileno], [], [], left_s)[0]:
                return False
            typed = os.read(self._fileno, 64).decode("ascii", "replace")
            if not typed or any(key in keys for key in typed):
                return True  # closed, or what was waited for
        return False


class _Nobody:
    def pressed(self, keys: str, timeout_s: float) -> bool:
        del keys
        time.sleep(timeout_s)
        return False


@contextmanager
def keyboard() -> Iterator[Keys]:
    """The keys of standard input, if it is a terminal, which is put back as it was."""
    if not sys.stdin.isatty():
        yield _Nobody()
        return
    fileno = sys.stdin.fileno()
    before = termios.tcgetattr(fileno)
    try:
        tty.setcbreak(fileno)
        yield _Terminal(fileno)
    finally:
        termios.tcsetattr(fileno, termios.TCSADRAIN, before)
