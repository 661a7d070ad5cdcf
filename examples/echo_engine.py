"""An engine that answers with its prompt, word by word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from inferq import Handoff, Request, Settings
from inferq.engines import Capacity, Chunk, Engine
from inferq.engines.base import Received

SLOTS = 16


class EchoEngine(Engine):
    """Says every word of the prompt again, a hundred words a second."""

    def __init__(self, settings: Settings) -> None:
        del settings
        self._live: set[str] = set()

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """All iterators end at their next word."""
        self._live.clear()

    def capacity(self) -> Capacity:
        """Slots are the only bound."""
        plenty = 2**31
        return Capacity(1, plenty, plenty, SLOTS, SLOTS - len(self._live), plenty, plenty)

    def count_tokens(self, request: Request) -> int:
        """A token a word."""
        return len((request.prompt or "").split())

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The words, at most ``max_tokens`` of them."""
        words = (request.prompt or "").split()[: request.max_tokens]
        self._live.add(request.request_id)
        try:
            for at, word in enumerate(words):
                await asyncio.sleep(0.01)
                if request.request_id not in self._live:
                    yield Chunk(finish_reason="cancelled")
                    return
                last = at + 1 == len(words)
                yield Chunk((at,), f"{word} ", "stop" if last else None)
        finally:
            self._live.discard(request.request_id)

    def prefill(self, request: Request, produced: Sequence[int] = ()) -> AsyncIterator[Chunk]:
        """This engine has no KV cache to hand off: a mixed node never asks."""
        raise NotImplementedError

    def decode(
        self, request: Request, handoff: Handoff, received: Received
    ) -> AsyncIterator[Chunk]:
        """See ``prefill``."""
        raise NotImplementedError

    def abort(self, request_id: str) -> bool:
        """The iterator ends at its next word."""
        known = request_id in self._live
        self._live.discard(request_id)
        return known
