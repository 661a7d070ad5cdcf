"""The conversation of two nodes about one KV cache, over a unix or a TCP socket.

::

    sender    nonce
    receiver  hello: magic, verb, name of the cache, name of the receiver, nonce; proof
    sender    REFUSED | GONE | BUSY | YES, proof
              and to FETCH: size, with the descriptor or followed by the bytes
    receiver  ARRIVED

Proofs are HMACs over the sender's nonce and the hello, with a key made of the cache's key, which
travels in the handoff, and the token of the topic, which never travels. Every message has a fixed
size, but the bytes themselves, whose number both sides know by then.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

MAGIC = b"inferqKV1"
FETCH, RELEASE = b"F", b"R"
YES, GONE, BUSY, REFUSED, ARRIVED = b"+", b"-", b"~", b"!", b"K"
NONCE_BYTES = 16
PROOF_BYTES = 32
HELLO = struct.Struct(f">{len(MAGIC)}sc16s16s{NONCE_BYTES}s")
SIZE = struct.Struct(">Q")
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
#: Bytes read or written between two looks at the clock.
PIECE_BYTES = 1 << 20


class Broken(OSError):
    """The other side does not speak this protocol, or not to us; trying again may help."""


class Wire:
    """A socket whose every operation ends in time.

    ``silence_s`` bounds each wait, ``total_s`` all of them together: a peer that sends a byte
    now and then cannot hold on to it for ever. All methods raise OSError.
    """

    def __init__(self, sock: socket.socket, silence_s: float, total_s: float) -> None:
        self.sock = sock
        self._silence_s = silence_s
        self.limit(total_s)

    def limit(self, total_s: float) -> None:
        """From now on, this much time in all."""
        self._deadline = time.monotonic() + total_s

    def send(self, data: bytes) -> None:
        """Send all of some few bytes."""
        self._arm()
        self.sock.sendall(data)

    def send_all(self, view: memoryview) -> None:
        """Send all of many bytes."""
        at = 0
        while at < len(view):
            self._arm()
            at += self.sock.send(view[at : at + PIECE_BYTES])

    def send_file(self, fd: int, count: int) -> None:
        """Send the first bytes of a file, without mapping or copying it here."""
        ready = select.poll()
        ready.register(self.sock, select.POLLOUT)
        at = 0
        while at < count:
            if not ready.poll(self._arm() * 1000):
                raise TimeoutError("the peer takes nothing")
            with suppress(BlockingIOError):
                sent = os.sendfile(self.sock.fileno(), fd, at, min(PIECE_BYTES, count - at))
                if sent == 0:
                    raise Broken("the file ended early")
                at += sent

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        data = bytearray(count)
        self.read_into(memoryview(data), lambda _: None)
        return bytes(data)

    def read_into(self, view: memoryview, each: Callable[[memoryview], object]) -> None:
        """Fill ``view``; ``each`` sees every piece while it is still in the processor's cache."""
        at = 0
        while at < len(view):
            self._arm()
            count = self.sock.recv_into(view[at : at + PIECE_BYTES])
            if count == 0:
                raise ConnectionResetError("the other side closed the connection")
            each(view[at : at + count])
            at += count

    def send_descriptor(self, data: bytes, fd: int) -> None:
        """Send a few bytes and with them a descriptor."""
        self._arm()
        if socket.send_fds(self.sock, [data], [fd]) != len(data):
            raise Broken("the socket took half of a message")

    def read_status(self) -> tuple[bytes, int | None]:
        """One byte, and the descriptor that came with it, which is the caller's to close."""
        self._arm()
        status, fds, _, _ = socket.recv_fds(self.sock, 1, 1, _CLOEXEC)
        if not status:
            raise ConnectionResetError("the other side closed the connection")
        return status, fds[0] if fds else None

    def _arm(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the transfer took too long")
        wait_s = min(self._silence_s, left_s)
        self.sock.settimeout(wait_s)
        return wait_s


class Proofs:
    """What each side shows to have the key, for one conversation."""

    def __init__(self, token: str, key: bytes, said: bytes) -> None:
        self._secret = hmac.digest(token.encode(), key, hashlib.sha256)
        self._said = said

    def sender(self) -> bytes:
        """The sender's proof."""
        return hmac.digest(self._secret, b"sender" + self._said, hashlib.sha256)

    def receiver(self) -> bytes:
        """The receiver's proof."""
        return hmac.digest(self._secret, b"receiver" + self._said, hashlib.sha256)


def shut(sock: socket.socket) -> None:
    """End a connection, and wake whoever waits for it in another thread."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
