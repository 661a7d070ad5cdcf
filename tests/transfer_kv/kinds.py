"""Senders and receivers of every kind, and bytes to move between them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from inferq.settings import TransferSettings
from inferq.transfer import Offer, Transfer
from inferq.transfer.memory import MemoryTransfer
from inferq.transfer.sockets import SocketTransfer
from tests.support import LONG_S

TCP = {"listen": "127.0.0.1:0"}


class Pair(NamedTuple):
    """A node that offers and one that fetches, by one protocol."""

    sender: Transfer
    receiver: Transfer
    protocol: str


def sockets(**options: Any) -> SocketTransfer:
    """Not started; it listens on TCP as well."""
    return SocketTransfer(TransferSettings(**{**TCP, **options}))


@asynccontextmanager
async def pair_of(kind: str, **options: Any) -> AsyncIterator[Pair]:
    """A started pair. ``options`` are settings; memory knows only its bounds."""
    if kind == "memory":
        bounds = {k: v for k, v in options.items() if k in {"max_bytes", "max_caches", "keep_s"}}
        both = MemoryTransfer(**bounds)
        pair = Pair(both, both, kind)
    else:
        pair = Pair(sockets(**options), sockets(**options), kind)
    try:
        async with asyncio.timeout(LONG_S):
            await pair.sender.start()
            await pair.receiver.start()
            yield pair
    finally:
        await pair.sender.stop()
        await pair.receiver.stop()


def noise(nbytes: int, seed: int = 0) -> bytes:
    """Bytes that look like no others."""
    return random.Random(seed).randbytes(nbytes)


async def offer(transfer: Transfer, data: bytes, request_id: str = "r") -> Offer:
    """Offer these bytes."""

    async def fill(memory: memoryview) -> None:
        memory[:] = data

    return await transfer.offer(request_id, len(data), fill)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that nobody signals."""
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def run(check: Callable[[], Awaitable[None]]) -> None:
    """Run a check in an event loop of its own."""

    async def main() -> None:
        async with asyncio.timeout(2 * LONG_S):
            await check()

    asyncio.run(main())
