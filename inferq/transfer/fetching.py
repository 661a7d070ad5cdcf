"""Getting a KV cache from the node that keeps it. Blocking: for a thread of its own."""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import xxhash

from inferq.errors import KvLost
from inferq.transfer import wire
from inferq.transfer.base import Fetched
from inferq.transfer.buffers import allocate, checksum, map_received
from inferq.transfer.ticket import Ticket, split_address
from inferq.transfer.wire import Broken, Proofs, Wire

MEMFD, TCP = "memfd", "tcp"
#: How often a KV cache is asked for, and how long to wait before the second time, seconds;
#: before each later one twice as long. A sender needs a moment to see that a receiver is gone.
ATTEMPTS = 4
PAUSE_S = 0.05


@dataclass(frozen=True)
class Limits:
    """How long to wait: for a sign of life, and in all, seconds; and the topic's secret."""

    silence_s: float
    total_s: float
    token: str = field(repr=False)


class Fetching:
    """One fetch (or release). ``abort`` ends it from another thread."""

    def __init__(self, ticket: Ticket, limits: Limits) -> None:
        self._ticket = ticket
        self._limits = limits
        self._name = secrets.token_bytes(16)
        self._aborted = threading.Event()
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None

    def abort(self) -> None:
        """Stop waiting for it."""
        with self._lock:
            self._aborted.set()
            if self._sock is not None:
                wire.shut(self._sock)

    def fetch(self, protocols: Sequence[str]) -> Fetched:
        """Try each way, some times.

        Raises:
            KvLost: it is gone, cannot be reached, or did not arrive whole.
        """
        started = time.monotonic()
        ways = list(protocols)
        error: Exception | None = None
        for attempt in range(ATTEMPTS):
            for way in list(ways):
                try:
                    data = self._receive(way)
                    return Fetched(data, way, time.monotonic() - started)
                except ConnectionRefusedError as exc:
                    error = exc
                    ways.remove(way)
                except (OSError, ValueError, MemoryError) as exc:
                    error = exc
            if not ways or time.monotonic() - started > self._limits.total_s:
                break
            if self._aborted.wait(PAUSE_S * 2**attempt):
                break
        raise KvLost(f"the KV cache cannot be fetched by {' or '.join(protocols)}: {error}")

    def release(self, protocols: Sequence[str]) -> None:
        """Say once that it is not needed."""
        for way in protocols:
            try:
                with self._connected(way) as talk, self._answered(talk, wire.RELEASE):
                    return
            except (OSError, ValueError, KvLost):
                continue

    def _receive(self, way: str) -> memoryview:
        with self._connected(way) as talk, self._answered(talk, wire.FETCH) as fd:
            (size,) = wire.SIZE.unpack(talk.read(wire.SIZE.size))
            if size != self._ticket.nbytes:
                raise Broken(f"it has {size} bytes, not the {self._ticket.nbytes} of the handoff")
            talk.limit(self._limits.total_s)
            data = self._read(talk) if fd is None else self._map(fd)
            talk.send(wire.ARRIVED)
            return data

    def _read(self, talk: Wire) -> memoryview:
        data = allocate(self._ticket.nbytes)
        digest = xxhash.xxh3_128()
        talk.read_into(data, digest.update)
        self._check(digest.hexdigest())
        return data

    def _map(self, fd: int) -> memoryview:
        data = map_received(fd, self._ticket.nbytes)
        self._check(checksum(data))
        return data

    def _check(self, digest: str) -> None:
        if digest != self._ticket.checksum:
            raise Broken("it did not arrive whole")

    @contextmanager
    def _connected(self, way: str) -> Iterator[Wire]:
        with self._open(way) as sock:
            with self._lock:
                self._sock = sock
                if self._aborted.is_set():
                    raise Broken("nobody waits for it any more")
            try:
                yield Wire(sock, self._limits.silence_s, self._limits.silence_s)
            finally:
                with self._lock:
                    self._sock = None

    def _open(self, way: str) -> socket.socket:
        if way == TCP:
            host, port = split_address(self._ticket.tcp)
            sock = socket.create_connection((host, port or 0), self._limits.silence_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self._limits.silence_s)
            sock.connect(abstract(self._ticket.unix))
        except OSError:
            sock.close()
            raise
        return sock

    @contextmanager
    def _answered(self, talk: Wire, verb: bytes) -> Iterator[int | None]:
        """Say who we are and what we want. Yields the descriptor that came with the yes."""
        proofs = self._greet(talk, verb)
        status, fd = talk.read_status()
        try:
            self._judge(status)
            if not hmac.compare_digest(talk.read(wire.PROOF_BYTES), proofs.sender()):
                raise Broken("the sender does not prove itself")
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    def _greet(self, talk: Wire, verb: bytes) -> Proofs:
        theirs, ours = talk.read(wire.NONCE_BYTES), secrets.token_bytes(wire.NONCE_BYTES)
        name, key = bytes.fromhex(self._ticket.name), bytes.fromhex(self._ticket.key)
        hello = wire.HELLO.pack(wire.MAGIC, verb, name, self._name, ours)
        proofs = Proofs(self._limits.token, key, theirs + hello)
        talk.send(hello + proofs.receiver())
        return proofs

    def _judge(self, status: bytes) -> None:
        if status == wire.GONE:
            raise KvLost("the KV cache is not kept any more")
        if status == wire.BUSY:
            raise Broken("another node is fetching it")
        if status == wire.REFUSED:
            raise Broken("the sender refuses us: has it another transfer.token?")
        if status != wire.YES:
            raise Broken("the other side does not speak this protocol")


def abstract(name: str) -> str:
    """The address of a unix socket without a file: it is gone with its process."""
    return f"\0inferq-{name}"
