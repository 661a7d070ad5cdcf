"""A TCP proxy that cuts, damages or stalls what the sender says, at an exact byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

#: Takes the number of the connection, the offset of a piece of the sender's words, and the
#: piece. Returns what is passed on, or None to cut the connection.
Meddle = Callable[[int, int, bytes], bytes | None]


class Meddler:
    """Stands between a receiver and the sender at ``address``."""

    def __init__(self, address: str, meddle: Meddle) -> None:
        self._target = int(address.rpartition(":")[2])
        self._meddle = meddle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def via(self, kv: dict[str, Any]) -> dict[str, Any]:
        """The same KV cache, to be had through here."""
        return {**kv, "tcp": self.address}

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                number, self.connections = self.connections, self.connections + 1
                for work in (
                    lambda c=client, s=server: _pass_on(c, s, lambda _, piece: piece),
                    lambda c=client, s=server, n=number: _pass_on(
                        s, c, lambda at, piece: self._meddle(n, at, piece)
                    ),
                ):
                    threading.Thread(target=work, daemon=True).start()


def _pass_on(
    source: socket.socket, sink: socket.socket, change: Callable[[int, bytes], bytes | None]
) -> None:
    at = 0
    with suppress(OSError):
        while piece := source.recv(65_536):
            changed = change(at, piece)
            if changed is None:
                break
            sink.sendall(changed)
            at += len(piece)
    for sock in (source, sink):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def cut_at(byte: int, *, connections: int = 1000) -> Meddle:
    """Cut the first connections before this byte."""

    def meddle(number: int, at: int, piece: bytes) -> bytes | None:
        return None if number < connections and at + len(piece) > byte else piece

    return meddle


def flip_at(byte: int, *, connections: int = 1000) -> Meddle:
    """Damage this byte of the first connections."""

    def meddle(number: int, at: int, piece: bytes) -> bytes:
        if number >= connections or not at <= byte < at + len(piece):
            return piece
        damaged = bytearray(piece)
        damaged[byte - at] ^= 0x10
        return bytes(damaged)

    return meddle
