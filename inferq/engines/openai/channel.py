"""From the task that reads a server's answer to the iterator of its request."""

from __future__ import annotations

import asyncio
from collections import deque

from inferq.engines.base import Chunk

Item = Chunk | BaseException | None
#: Chunks that wait for a slow reader; the server's connection is not read meanwhile.
MOST_WAITING = 64


class Channel:
    """One writer, one reader, one event loop. None ends it, and so does an exception."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        #: It was cut: nothing more comes.
        self.is_over = False

    async def put(self, item: Item) -> None:
        """Append, as soon as there is room."""
        while len(self._items) >= MOST_WAITING and not self.is_over:
            self._emptied.clear()
            await self._emptied.wait()
        if not self.is_over:
            self._items.append(item)
            self._filled.set()

    def cut(self, last: Chunk) -> None:
        """End now, with ``last``; what waits is dropped."""
        self.is_over = True
        self._items = deque([last, None])
        self._filled.set()
        self._emptied.set()

    async def get(self) -> Chunk | None:
        """The next chunk; None at the end. Raises what the writer has put."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        item = self._items.popleft()
        self._emptied.set()
        if isinstance(item, BaseException):
            raise item
        return item
