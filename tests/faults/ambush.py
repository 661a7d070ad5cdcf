"""A proxy that loses a connection at the worst moment: when Redis has done what it was asked."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

from inferq.cluster.link import ScriptName, script
from tests.proxy import Proxy

_PIECE = 65_536


class Ambush(Proxy):
    """Passes everything on, except the answers it lies in wait for."""

    def __init__(self, target_port: int) -> None:
        self._wanted: list[bytes] = []
        self._hidden = threading.Lock()
        self.sprung = 0
        super().__init__(target_port)

    def lose_answers(self, name: ScriptName, count: int = 1) -> None:
        """The next so many times this script is run, its answer never arrives."""
        with self._hidden:
            self._wanted += [script(name).sha.encode()] * count

    def _springs(self, data: bytes) -> bool:
        with self._hidden:
            for sha in self._wanted:
                if sha in data:
                    self._wanted.remove(sha)
                    self.sprung += 1
                    return True
        return False

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, suppress(OSError, ValueError, KeyError):
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            is_caught = False
            while True:
                for key, _ in selector.select():
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    data = source.recv(_PIECE)
                    if not data or (is_caught and source is server):
                        return self._forget(client, server)
                    if source is client:
                        is_caught = is_caught or self._springs(data)
                    (server if source is client else client).sendall(data)
        return self._forget(client, server)
