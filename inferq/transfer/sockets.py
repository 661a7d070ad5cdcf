"""KV caches that go to other processes: a memfd on the same host, TCP to another."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from inferq.errors import EngineStartError, KvLost, SettingsError
from inferq.settings import TransferSettings
from inferq.transfer.base import Fetched, Offer
from inferq.transfer.buffers import has_shared_buffers
from inferq.transfer.fetching import MEMFD, TCP, Fetching, Limits, abstract
from inferq.transfer.keeping import KeepingTransfer
from inferq.transfer.serving import Server
from inferq.transfer.store import Entry
from inferq.transfer.ticket import Ticket, host_identity, join_address, split_address

T = TypeVar("T")
_LOOPBACK = "127.0.0.1:0"
_BACKLOG = 128


class SocketTransfer(KeepingTransfer):
    """Gives descriptors through a unix socket without a file, and bytes over TCP if it listens.

    Where there is no memfd, TCP is all there is, on loopback unless the settings say more.
    """

    def __init__(self, settings: TransferSettings) -> None:
        """Raises SettingsError where others could connect and there is no token."""
        super().__init__(
            max_bytes=settings.max_bytes, max_caches=settings.max_caches, keep_s=settings.keep_s
        )
        self._settings = settings
        self._host = host_identity()
        self._shared = bool(self._host) and has_shared_buffers()
        self._listen = settings.listen or ("" if self._shared else _LOOPBACK)
        check(settings)
        self.protocols = (MEMFD, TCP) if self._shared else (TCP,)
        self._limits = Limits(settings.timeout_s, settings.keep_s, settings.secret)
        self._unix = self._tcp = ""
        self._server: Server | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._running: set[Fetching] = set()

    async def start(self) -> None:
        """Listen."""
        listeners: list[socket.socket] = []
        try:
            if self._shared:
                listeners.append(self._listen_on_unix())
            if self._listen:
                listeners.append(self._listen_on_tcp())
        except OSError as exc:
            for listener in listeners:
                listener.close()
            raise EngineStartError(f"transfer.listen={self._listen!r}: {exc}") from exc
        most = self._settings.max_connections
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="inferq-fetch")
        self._server = Server(self._store, self._limits, listeners, most)
        self._server.start()

    async def stop(self) -> None:
        """Close all connections and free everything."""
        await super().stop()
        server, self._server = self._server, None
        threads, self._threads = self._threads, None
        for fetching in list(self._running):
            fetching.abort()
        if server is not None and threads is not None:
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(threads.shutdown)

    async def fetch(self, kv: Mapping[str, Any], protocols: Sequence[str]) -> Fetched:
        """By descriptor when both are on one host, else by TCP."""
        ticket = Ticket.parse(kv, self._settings.max_bytes)
        ways = [way for way in self._ways(ticket) if way in protocols]
        if not ways:
            raise KvLost("the KV cache is on a host from which this node cannot fetch it")
        return await self._in_thread(ticket, lambda fetching: fetching.fetch(ways))

    async def release(self, kv: Mapping[str, Any]) -> None:
        """Tell the node that keeps it."""
        try:
            ticket = Ticket.parse(kv, self._settings.max_bytes)
            await self._in_thread(ticket, lambda f: f.release(self._ways(ticket)))
        except KvLost:
            return

    def _describe(self, entry: Entry) -> Offer:
        kv: dict[str, Any] = {
            "name": entry.name.hex(),
            "key": entry.key.hex(),
            "bytes": entry.buffer.nbytes,
            "sum": entry.checksum,
        }
        protocols = []
        if self._unix:
            kv.update(host=self._host, unix=self._unix)
            protocols.append(MEMFD)
        if self._tcp:
            kv["tcp"] = self._tcp
            protocols.append(TCP)
        return Offer(kv, tuple(protocols))

    def _ways(self, ticket: Ticket) -> tuple[str, ...]:
        same_host = self._shared and ticket.host == self._host
        return ((MEMFD,) if same_host and ticket.unix else ()) + ((TCP,) if ticket.tcp else ())

    async def _in_thread(self, ticket: Ticket, work: Callable[[Fetching], T]) -> T:
        if self._threads is None:
            raise KvLost("this node has stopped")
        fetching = Fetching(ticket, self._limits)
        self._running.add(fetching)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, work, fetching)
        finally:
            # When the caller is cancelled its thread must not go on.
            fetching.abort()
            self._running.discard(fetching)

    def _listen_on_unix(self) -> socket.socket:
        self._unix = secrets.token_hex(16)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(abstract(self._unix))
        listener.listen(_BACKLOG)
        return listener

    def _listen_on_tcp(self) -> socket.socket:
        host, port = split_address(self._listen)
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        bound = listener.getsockname()[1]
        shown, shown_port = split_address(self._settings.advertise)
        self._tcp = join_address(shown or host, shown_port or bound)
        return listener


def check(settings: TransferSettings) -> None:
    """Refuse addresses that cannot work, and a network without a secret.

    Raises:
        SettingsError: and names the setting.
    """
    for name in ("listen", "advertise"):
        try:
            split_address(getattr(settings, name))
        except ValueError as exc:
            raise SettingsError(f"transfer.{name}: {exc}", [f"transfer.{name}"]) from None
    host, _ = split_address(settings.listen)
    if not host or is_loopback(host):
        return
    if not settings.secret:
        raise SettingsError(
            f"transfer.token: must be set when transfer.listen={settings.listen!r}, "
            "where other hosts can connect",
            ["transfer.token"],
        )
    if not settings.advertise and is_any(host):
        raise SettingsError(
            f"transfer.advertise: must say where others connect to when "
            f"transfer.listen={settings.listen!r}",
            ["transfer.advertise"],
        )


def is_any(host: str) -> bool:
    """Whether it means all addresses of this machine, so that nobody can connect to it."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
