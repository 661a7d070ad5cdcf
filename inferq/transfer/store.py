"""The KV caches that a node keeps: bounded in bytes, in number and in time."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence

from inferq.errors import EngineError
from inferq.transfer.base import Kept
from inferq.transfer.buffers import Buffer

_MIB = 2**20
Cut = Callable[[], None]


class Entry:
    """One KV cache. ``key`` is the capability to fetch it, ``name`` only says which it is.

    While it is ``busy``, one ``receiver`` (or its writer) has it; ``cut`` ends that.
    """

    def __init__(self, request_id: str, buffer: Buffer) -> None:
        self.request_id = request_id
        self.buffer = buffer
        self.name = secrets.token_bytes(16)
        self.key = secrets.token_bytes(32)
        self.checksum = ""
        self.since = time.monotonic()
        self.busy = True
        self.receiver = b""
        self.cut: Cut = _nothing


class Store:
    """Entries, oldest first. For any thread.

    An entry beyond a bound takes the place of the oldest ones: their requests cost a new
    prefill, where refusing it would fail a request.
    """

    def __init__(self, *, max_bytes: int, max_caches: int, keep_s: float) -> None:
        self._max_bytes = max_bytes
        self._max_caches = max_caches
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._entries: dict[bytes, Entry] = {}
        self._nbytes = 0

    @property
    def is_full(self) -> bool:
        """Whether half of a bound is reached; the rest is for prefills that run already."""
        return self._nbytes * 2 > self._max_bytes or len(self._entries) * 2 > self._max_caches

    def add(self, request_id: str, nbytes: int, *, shared: bool) -> Entry:
        """A new entry, busy until ``publish``.

        Raises:
            EngineError: there is no room for it.
        """
        if nbytes > self._max_bytes:
            raise EngineError(
                f"a KV cache of {nbytes / _MIB:.1f} MiB exceeds transfer.max_bytes, "
                f"{self._max_bytes / _MIB:.1f} MiB"
            )
        with self._lock:
            self._make_room(nbytes)
            try:
                entry = Entry(request_id, Buffer(nbytes, shared=shared))
            except (OSError, MemoryError) as exc:
                raise EngineError(f"no memory for a KV cache of {nbytes} bytes: {exc}") from exc
            self._entries[entry.name] = entry
            self._nbytes += nbytes
        return entry

    def publish(self, entry: Entry, checksum: str) -> None:
        """It is written: whoever has the key may have it, and its time begins.

        Raises:
            EngineError: it was freed meanwhile.
        """
        with self._lock:
            if entry.name not in self._entries:
                raise EngineError("the KV cache was freed while it was written")
            entry.checksum, entry.since, entry.busy = checksum, time.monotonic(), False

    def find(self, name: bytes) -> Entry | None:
        """The entry of this name."""
        return self._entries.get(name)

    def lend(self, entry: Entry, receiver: bytes, cut: Cut) -> bool:
        """Let one receiver have it until ``give_back`` or ``remove``; False when one has it.

        A receiver that asks again has lost its connection, whether or not that shows here.
        """
        with self._lock:
            if entry.name not in self._entries or (entry.busy and entry.receiver != receiver):
                return False
            entry.cut()
            entry.busy, entry.receiver, entry.cut = True, receiver, cut
            return True

    def give_back(self, entry: Entry, cut: Cut) -> None:
        """The receiver that can be ``cut`` failed: the next may have it."""
        with self._lock:
            if entry.cut is cut:
                entry.busy, entry.cut = False, _nothing

    def remove(self, entry: Entry) -> None:
        """Free it, whoever has it."""
        with self._lock:
            self._drop(entry)

    def free(self, request_ids: Sequence[str]) -> None:
        """Free what is kept for these requests."""
        wanted = frozenset(request_ids)
        with self._lock:
            for entry in [e for e in self._entries.values() if e.request_id in wanted]:
                self._drop(entry)

    def expire(self) -> float | None:
        """Free what was kept for too long. Returns when to look again, in seconds."""
        latest = time.monotonic() - self._keep_s
        with self._lock:
            idle = [e for e in self._entries.values() if not e.busy]
            for entry in idle:
                if entry.since <= latest:
                    self._drop(entry)
            if not self._entries:
                return None
            return max(0.01, min([e.since - latest for e in idle if e.since > latest] or [1.0]))

    def kept(self) -> list[Kept]:
        """What is kept, oldest first."""
        with self._lock:
            now = time.monotonic()
            return [
                Kept(e.request_id, e.buffer.nbytes, now - e.since) for e in self._entries.values()
            ]

    def clear(self) -> None:
        """Free everything."""
        with self._lock:
            for entry in list(self._entries.values()):
                self._drop(entry)

    def _make_room(self, nbytes: int) -> None:
        idle = [entry for entry in self._entries.values() if not entry.busy]
        while self._nbytes + nbytes > self._max_bytes or len(self._entries) + 1 > self._max_caches:
            if not idle:
                raise EngineError("all KV caches that may be kept are on their way")
            self._drop(idle.pop(0))

    def _drop(self, entry: Entry) -> None:
        if self._entries.pop(entry.name, None) is None:
            return
        self._nbytes -= entry.buffer.nbytes
        # The memory itself goes with the last reference: a thread may still be sending it.
        entry.cut()


def _nothing() -> None:
    """Nobody has it."""
