"""Processes that the demo starts, and ends."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from inferq.errors import InferqError

#: A process that has not ended by then is killed, seconds.
END_S = 10.0
TAIL_LINES = 15


class ProcessFailed(InferqError):
    """Raised when a process does not start, or ends too early; ``log`` is what it wrote last."""

    code = "process"

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class Child:
    """A process of our own, with a log file.

    It is in a process group of its own: the terminal's Ctrl-C reaches us only, and we end each
    in its turn.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own programs
                command,
                env=env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError), self.process.stdin as pipe:
            pipe.write(stdin.encode())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def log_tail(self) -> str:
        """The last lines it has written."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-TAIL_LINES:])


def end_all(children: Sequence[Child], timeout_s: float = END_S) -> None:
    """Ask all to end, wait for them, and kill those that did not."""
    try:
        for child in children:
            child.process.terminate()
        for child in children:
            child.process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        pass  # what is left is killed below, as it is after an interrupt
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
