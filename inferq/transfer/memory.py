"""KV caches that stay in this process: for local mode, and the twin of the real one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from inferq.errors import KvLost
from inferq.transfer.base import Fetched, Offer
from inferq.transfer.buffers import checksum
from inferq.transfer.keeping import KeepingTransfer
from inferq.transfer.store import Entry

MEMORY = "memory"


class MemoryTransfer(KeepingTransfer):
    """Hands the memory itself to whoever fetches it, if it is this process."""

    protocols = (MEMORY,)

    def __init__(
        self, *, max_bytes: int = 2**31, max_caches: int = 512, keep_s: float = 120.0
    ) -> None:
        super().__init__(max_bytes=max_bytes, max_caches=max_caches, keep_s=keep_s)

    async def start(self) -> None:
        """There is nothing to serve."""

    async def fetch(self, kv: Mapping[str, Any], protocols: Sequence[str]) -> Fetched:
        """Take it out of what is kept."""
        started = time.monotonic()
        entry = self._find(kv) if MEMORY in protocols else None
        if entry is None or not self._store.lend(entry, b"here", lambda: None):
            raise KvLost("the KV cache is not kept here")
        view = entry.buffer.view()
        self._store.remove(entry)
        if checksum(view) != kv.get("sum"):
            raise KvLost("the KV cache was damaged in memory")
        return Fetched(view, MEMORY, time.monotonic() - started)

    async def release(self, kv: Mapping[str, Any]) -> None:
        """Free it."""
        entry = self._find(kv)
        if entry is not None:
            self._store.remove(entry)

    def _describe(self, entry: Entry) -> Offer:
        kv = {"name": entry.name.hex(), "bytes": entry.buffer.nbytes, "sum": entry.checksum}
        return Offer(kv, self.protocols)

    def _find(self, kv: Mapping[str, Any]) -> Entry | None:
        try:
            return self._store.find(bytes.fromhex(kv["name"]))
        except (KeyError, TypeError, ValueError):
            return None
