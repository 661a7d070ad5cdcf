"""Where the two halves of a concurrent request meet: a unix socket that dies with its process."""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
_SIZE = struct.Struct("!I")
_ARRIVED = b"!"
#: How often somebody who waits looks whether he is still to, seconds.
_LOOK_S = 0.02


class Parted(Exception):
    """The other half did not come in time, or has gone; or this one was aborted."""


async def _unless(is_over: Callable[[], bool], awaited: Awaitable[T], until: float) -> T:
    """Wait for something until a time, or until it is over."""
    task = asyncio.ensure_future(awaited)
    try:
        while not task.done():
            if is_over():
                raise Parted("aborted")
            if time.monotonic() > until:
                raise Parted("it does not come")
            await asyncio.wait([task], timeout=_LOOK_S)
        return task.result()
    except (OSError, asyncio.IncompleteReadError):
        raise Parted("it has gone") from None
    finally:
        task.cancel()


class Giving:
    """The prefill half. ``room`` is where the other one finds it."""

    def __init__(self, patience_s: float, is_over: Callable[[], bool]) -> None:
        self.room = secrets.token_hex(16)
        self._patience_s = patience_s
        self._is_over = is_over
        self._server: asyncio.Server
        self._came: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]

    async def __aenter__(self) -> Self:
        self._came = asyncio.get_running_loop().create_future()
        self._server = await asyncio.start_unix_server(self._on_peer, _address(self.room))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        if self._came.done() and not self._came.cancelled():
            self._came.result()[1].close()

    async def give(self, data: bytes, pause_s: float) -> None:
        """Wait for the other half and send it the KV cache, with a pause in its middle."""
        until = time.monotonic() + self._patience_s
        reader, writer = await _unless(self._is_over, asyncio.shield(self._came), until)
        middle = len(data) // 2
        writer.write(_SIZE.pack(len(data)) + data[:middle])
        await asyncio.sleep(pause_s)
        writer.write(data[middle:])
        until = time.monotonic() + self._patience_s
        await _unless(self._is_over, writer.drain(), until)
        await _unless(self._is_over, reader.readexactly(len(_ARRIVED)), until)

    async def _on_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._came.done():
            writer.close()
        else:
            self._came.set_result((reader, writer))


class Fetching:
    """The decode half."""

    def __init__(self, room: str, patience_s: float, is_over: Callable[[], bool]) -> None:
        self._room = room
        self._patience_s = patience_s
        self._is_over = is_over

    async def fetch(self) -> bytes:
        """Find the other half and get the KV cache from it."""
        until = time.monotonic() + self._patience_s
        reader, writer = await self._find(until)
        try:
            # It may still be computing; that takes as long as it takes.
            size = await _unless(self._is_over, reader.readexactly(_SIZE.size), float("inf"))
            until = time.monotonic() + self._patience_s
            data = await _unless(self._is_over, reader.readexactly(*_SIZE.unpack(size)), until)
            writer.write(_ARRIVED)
            with suppress(OSError):
                await writer.drain()
            return data
        finally:
            writer.close()

    async def _find(self, until: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            if self._is_over():
                raise Parted("aborted")
            try:
                return await asyncio.open_unix_connection(_address(self._room), limit=2**26)
            except OSError:
                if time.monotonic() > until:
                    raise Parted("it cannot be found") from None
                await asyncio.sleep(_LOOK_S)


def _address(room: str) -> str:
    return f"\0inferq-faults-{room}"
