"""TLS in front of a server that has none, and the certificates for it."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

CERTS = Path(__file__).parent / "certs"
_PIECE = 65_536


def cert(name: str) -> str:
    """Path of a certificate."""
    return str(CERTS / f"{name}.pem")


def key(name: str) -> str:
    """Path of its private key."""
    return str(CERTS / f"{name}.key")


class TlsServer:
    """Takes TLS connections on ``port``, as ``name``, and passes them on in plain text.

    ``client_ca``: who connects must show a certificate of this authority.
    """

    def __init__(self, target_port: int, name: str = "server", client_ca: str = "") -> None:
        self._target_port = target_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert(name), key(name))
        if client_ca:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(cert(client_ca))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for end in list(self._ends):
            _close(end)
        for thread in list(self._threads):
            thread.join()

    def _spawn(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._ends.append(client)
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            encrypted = self._context.wrap_socket(client, server_side=True)
        except OSError:  # refused, by either side
            _close(client)
            return
        with suppress(OSError):
            plain = socket.create_connection(("127.0.0.1", self._target_port))
            self._ends += [encrypted, plain]
            self._spawn(_pass_on, plain, encrypted)
            _pass_on(encrypted, plain)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_PIECE):
            sink.sendall(data)
    _close(source)
    _close(sink)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
