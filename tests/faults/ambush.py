"""A proxy that loses a connection at the worst moment: when Redis has done what it was asked."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from inferq.cluster.link import ScriptName, script
from tests.proxy import Proxy

_PIECE = 65_536


class Ambush(Proxy):
    """Passes everything on, except the answers it lies in wait for.

    ``sprung``: how many of these it has caught.
    """

    def __init__(self, target_port: int) -> None:
        self._wanted: list[bytes] = []
        self._caught: set[socket.socket] = set()
        self._hidden = threading.Lock()
        self.sprung = 0
        super().__init__(target_port)

    def lose_answers(self, name: ScriptName, count: int = 1) -> None:
        """The next so many times this script is run, the connection is lost with its answer."""
        with self._hidden:
            self._wanted += [script(name).sha.encode()] * count

    def _pass_on(self, source: socket.socket, sink: socket.socket, *, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE):
                if answers and source in self._caught:
                    break
                if not answers and self._springs(data):
                    self._caught.add(sink)
                self._wait_until_mended()
                sink.sendall(data)
        client, server = (sink, source) if answers else (source, sink)
        self._forget(client, server)

    def _springs(self, data: bytes) -> bool:
        with self._hidden:
            for sha in self._wanted:
                if sha in data:
                    self._wanted.remove(sha)
                    self.sprung += 1
                    return True
        return False

    def _wait_until_mended(self) -> None:
        with self._flows:
            self._flows.wait_for(lambda: not self._is_frozen)
