"""Commands as processes, some of them at a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Self

from tests.support import LONG_S

INFERQ = (sys.executable, "-c", "from inferq.commands.main import main; main()")
CELERY = (sys.executable, "-m", "celery", "-A", "inferq")


def environment(port: int, **more: str) -> dict[str, str]:
    """What a process needs to find the server and the package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")}
    own = {"INFERQ_SCHEDULER_PORT": str(port), "TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
    return {**kept, **own, **more}


def run(
    arguments: Sequence[str], env: Mapping[str, str], given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run to the end, without a terminal."""
    return subprocess.run(
        arguments, env=dict(env), input=given, text=True, capture_output=True, timeout=LONG_S,
        check=False,
    )  # fmt: skip


class Terminal:
    """A process at a terminal of its own."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            arguments, env=dict(env), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.text = ""

    def read_until(self, *words: str) -> str:
        """Read on until all words have been written; all that was so far."""
        gives_up_at = time.monotonic() + LONG_S
        while not all(word in self.text for word in words):
            left_s = gives_up_at - time.monotonic()
            if left_s <= 0 or not self._read(left_s):
                raise AssertionError(f"{words} did not come: {self.text!r}")
        return self.text

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def wait(self) -> int:
        """The exit code, once all was read."""
        while self._read(LONG_S):
            pass
        return self.process.wait(LONG_S)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._ours, 65_536)
        except OSError:  # the other end is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
