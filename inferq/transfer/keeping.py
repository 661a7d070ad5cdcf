"""What every transfer that keeps KV caches in this process shares."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence

from inferq.transfer.base import Kept, Offer, Transfer
from inferq.transfer.buffers import checksum
from inferq.transfer.store import Entry, Store

#: Up to this size a checksum takes less time than handing it to a thread and back.
_AT_ONCE_BYTES = 512 * 1024


class KeepingTransfer(Transfer):
    """Keeps what is offered in a Store, and frees there what nobody fetched in time."""

    _shared = False

    def __init__(self, *, max_bytes: int, max_caches: int, keep_s: float) -> None:
        self._store = Store(max_bytes=max_bytes, max_caches=max_caches, keep_s=keep_s)
        self._sweeper: asyncio.TimerHandle | None = None

    async def stop(self) -> None:
        """Free everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._store.clear()

    async def offer(
        self, request_id: str, nbytes: int, fill: Callable[[memoryview], Awaitable[object]]
    ) -> Offer:
        """Keep it, with a checksum of what was written."""
        entry = self._store.add(request_id, nbytes, shared=self._shared)
        try:
            view = entry.buffer.view()
            await fill(view)
            digest = (
                checksum(view)
                if nbytes <= _AT_ONCE_BYTES
                else await asyncio.to_thread(checksum, view)
            )
            self._store.publish(entry, digest)
        except BaseException:
            self._store.remove(entry)
            raise
        if self._sweeper is None:
            self._sweep()
        return self._describe(entry)

    def kept(self) -> list[Kept]:
        """What is kept here, oldest first."""
        return self._store.kept()

    def free(self, request_ids: Sequence[str]) -> None:
        """Free what is kept for these requests."""
        self._store.free(request_ids)

    @property
    def is_full(self) -> bool:
        """Whether half of what may be kept is kept."""
        return self._store.is_full

    @abstractmethod
    def _describe(self, entry: Entry) -> Offer:
        """Where others find it."""

    def _sweep(self) -> None:
        again_s = self._store.expire()
        self._sweeper = None
        if again_s is not None:
            self._sweeper = asyncio.get_running_loop().call_later(again_s, self._sweep)
