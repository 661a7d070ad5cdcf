"""Engines for benchmarks; a node's settings name them ``benchmarks.cluster_engines:Stepping``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from inferq.engines.base import Chunk
from inferq.engines.noop import NoopEngine
from inferq.messages import Request
from inferq.settings import Settings

STEP_S = 0.01
SLOTS = 8
#: Longer than any benchmark, seconds.
NEVER_S = 3600.0


class Stepping(NoopEngine):
    """Gives each of its requests a token every 10 ms, and computes eight at once."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._slots = SLOTS

    async def _tokens(self, request: Request, start: int, stop: int) -> AsyncIterator[Chunk]:
        loop = asyncio.get_running_loop()
        due_at = loop.time()
        async with aclosing(super()._tokens(request, start, stop)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                due_at += STEP_S
                await asyncio.sleep(max(0.0, due_at - loop.time()))
                yield chunk


class Stuck(NoopEngine):
    """Has one slot, and never answers."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._slots = 1

    async def _tokens(self, request: Request, start: int, stop: int) -> AsyncIterator[Chunk]:
        async with aclosing(super()._tokens(request, start, stop)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                await asyncio.sleep(NEVER_S)
                yield chunk
