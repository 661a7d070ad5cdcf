"""Child processes that a test starts, stops, freezes and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.faults.nursery import fork_celery
from tests.support import LONG_S

ROOT = Path(__file__).parents[2]
_LOG_TAIL_BYTES = 4000


class Process(ABC):
    """A child process with a log of its own. ``name``: of a node, that of its worker."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log_path = log
        log.touch()

    @property
    @abstractmethod
    def pid(self) -> int:
        """Its process id."""

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Whether it has not ended."""

    @abstractmethod
    def wait(self) -> int:
        """Wait until it ends; its exit code."""

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.is_alive:
            os.kill(self.pid, number)

    def freeze(self) -> None:
        """It stands still, like a process on a machine that swaps."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on, and does not know that time has passed."""
        self.send(signal.SIGCONT)

    def term(self) -> None:
        """Ask it to stop as its operator would."""
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        """As a power cut would."""
        self.send(signal.SIGKILL)
        self.wait()

    def log(self) -> str:
        """What it wrote."""
        return self.log_path.read_text(errors="replace")

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.log()[-_LOG_TAIL_BYTES:]

    def memory_bytes(self) -> int:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Command(Process):
    """A Python program, started from nothing."""

    def __init__(
        self, name: str, arguments: Sequence[str], env: Mapping[str, str], log: Path
    ) -> None:
        super().__init__(name, log)
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", *arguments],
                cwd=log.parent,
                env=_environment(env),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    def wait(self) -> int:
        return self._child.wait(LONG_S)


class Fork(Process):
    """The same as ``celery`` with these arguments, sooner."""

    def __init__(
        self, name: str, arguments: Sequence[str], env: Mapping[str, str], log: Path
    ) -> None:
        super().__init__(name, log)
        self._child = fork_celery(arguments, _environment(env), log)

    @property
    def pid(self) -> int:
        return self._child.pid or 0

    @property
    def is_alive(self) -> bool:
        return self._child.is_alive()

    def wait(self) -> int:
        self._child.join(LONG_S)
        assert self._child.exitcode is not None, f"it does not end\n{self.tail()}"
        return self._child.exitcode


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ_")}
    return {**mine, "PYTHONPATH": str(ROOT), **more}
