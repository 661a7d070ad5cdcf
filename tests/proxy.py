"""A TCP proxy that can lose its connections, refuse new ones, spoil or cut answers, or pass
nothing on.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_HOST = "127.0.0.1"
_PIECE = 65_536
#: An answer of at least so many bytes is a long one.
_LONG = 8192


class Proxy:
    """Listens on ``port`` and passes bytes to and from ``target_port`` of this machine."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = _listener_on(0)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._flows = threading.Condition(self._lock)
        self._is_frozen = False
        self._is_deaf = False
        #: What becomes of the next answers of some length: how many, and what.
        self._spoils: list[Callable[[bytes], bytes]] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """Connections that pass through it now."""
        with self._lock:
            return len(self._pairs)

    def cut(self) -> None:
        """Drop all connections, and refuse new ones."""
        _close(self._listener)
        self.drop()

    def drop(self) -> None:
        """Drop all connections; new ones pass."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _close(end)

    def freeze(self) -> None:
        """Pass nothing on, as a network that loses everything."""
        with self._lock:
            self._is_frozen = True

    def deafen(self) -> None:
        """Pass on what clients send, and no answers."""
        with self._lock:
            self._is_deaf = True

    def spoil(self, count: int) -> None:
        """Change a bit in so many answers, each of the next connections that get a long one."""
        with self._lock:
            self._spoils += [_spoiled] * count

    def cut_short(self, count: int) -> None:
        """Lose so many connections in the middle of a long answer."""
        with self._lock:
            self._spoils += [_halved] * count

    @property
    def left_to_spoil(self) -> int:
        """How many answers are still to be spoiled or cut."""
        with self._lock:
            return len(self._spoils)

    def mend(self) -> None:
        """Pass everything on again, and accept connections."""
        with self._flows:
            self._is_frozen = self._is_deaf = False
            self._flows.notify_all()
        if self._listener.fileno() < 0:
            self._listener = _listener_on(self.port)
            self._listen()

    def close(self) -> None:
        """End, with all threads."""
        self.mend()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _spawn(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        listener = self._listener
        self._spawn(lambda: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((_HOST, self._target_port))
        except OSError:
            _close(client)
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._pairs.append((client, server))
        self._spawn(lambda: self._pass_on(client, server, answers=False))
        self._spawn(lambda: self._pass_on(server, client, answers=True))

    def _pass_on(self, source: socket.socket, sink: socket.socket, *, answers: bool) -> None:
        is_whole, is_meddled = True, False
        with suppress(OSError):
            while is_whole and (data := source.recv(_PIECE)):
                with self._flows:
                    self._flows.wait_for(
                        lambda: not (self._is_frozen or (answers and self._is_deaf))
                    )
                sent = self._meddle(data) if answers and not is_meddled else data
                is_meddled = is_meddled or sent != data
                is_whole = len(sent) == len(data)
                sink.sendall(sent)
        client, server = (sink, source) if answers else (source, sink)
        self._forget(client, server)

    def _meddle(self, data: bytes) -> bytes:
        with self._lock:
            if len(data) < _LONG or not self._spoils:
                return data
            return self._spoils.pop(0)(data)

    def _forget(self, client: socket.socket, server: socket.socket) -> None:
        with self._lock, suppress(ValueError):
            self._pairs.remove((client, server))
        _close(client)
        _close(server)


def _listener_on(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((_HOST, port))
    listener.listen(64)
    return listener


def _spoiled(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _close(end: socket.socket) -> None:
    """Close it, and wake whoever waits for it."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
