"""Connections to the server. The key goes in here, and never comes out."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from inferq.engines.openai.failures import Refused, refusal
from inferq.engines.openai.flavours import FLAVOURS
from inferq.engines.openai.keys import headers_of, read_key, tls_of
from inferq.engines.openai.sse import BadStream
from inferq.errors import EngineError
from inferq.settings import OpenAISettings

logger = logging.getLogger(__name__)

#: Most that is read of an answer that is no stream, and of an error, bytes.
MAX_DOCUMENT = 16_777_216
MAX_ERROR = 65_536
#: The server has not taken the request: it may be sent again.
NOT_TAKEN = frozenset({429, 503})
LONGEST_PAUSE_S = 5.0
#: Stands for the key, which servers repeat when it is wrong.
HIDDEN = "(secret)"
#: A request into a connection that the server is closing is lost, and cannot safely be repeated.
KEEP_ALIVE_S = 4.0


class Unreachable(EngineError):
    """Raised when no connection to the server can be made: nothing was sent."""


class Upstream:
    """The server's API under ``base_url``. For the event loop that opened it."""

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._keeps_alive = FLAVOURS[settings.flavour].keeps_alive
        self.base = settings.base_url.rstrip("/")
        #: Where the paths begin that are no part of OpenAI's API.
        self.root = self.base.removesuffix("/v1")
        self._client: httpx.AsyncClient | None = None
        #: Connections of their own, so that the server can be looked at when all others are busy.
        self._looks: httpx.AsyncClient | None = None
        self._closing: set[asyncio.Future[None]] = set()
        self._key = ""

    def open(self) -> None:
        """Read the key and the certificates.

        Raises:
            EngineStartError: names the setting at fault.
        """
        for name in ("httpx", "httpcore"):
            library = logging.getLogger(name)
            if library.level == logging.NOTSET:  # a line for each request is of no use here
                library.setLevel(logging.WARNING)
        self._key = read_key(self._settings)
        self._warn()
        context = tls_of(self._settings)
        self._client = self._pool(
            context, self._settings.max_connections or self._settings.max_slots
        )
        self._looks = self._pool(context, 2)

    def _pool(self, context: ssl.SSLContext | bool, most: int) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=headers_of(self._key),
            verify=context,
            # What the environment says of proxies and passwords is meant for other programs.
            trust_env=False,
            # A request that waits for a connection waits for its turn, as it would in a queue.
            timeout=httpx.Timeout(
                self._settings.read_timeout_s, connect=self._settings.connect_timeout_s, pool=None
            ),
            limits=httpx.Limits(
                max_connections=most,
                max_keepalive_connections=most if self._keeps_alive else 0,
                keepalive_expiry=KEEP_ALIVE_S,
            ),
        )

    def _warn(self) -> None:
        url = httpx.URL(self.base)
        is_near = url.host in ("localhost", "::1") or url.host.startswith("127.")
        if self._key and url.scheme == "http" and not is_near:
            logger.warning("the API key travels to %s unencrypted", url.host)
        if url.scheme == "https" and not self._settings.verify:
            logger.warning("the certificate of %s is not checked", url.host)

    async def close(self) -> None:
        """Close all connections. A second call does nothing."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        clients = self._client, self._looks
        self._client = self._looks = None
        for client in clients:
            if client is not None:
                await client.aclose()

    async def get(self, url: str, *, timeout_s: float) -> bytes:
        """A document.

        Raises:
            Unreachable, EngineError: see ``post``; it is tried once.
        """
        client = _opened(self._looks)
        request = client.build_request("GET", url, timeout=timeout_s)
        if request.url.host != httpx.URL(self.base).host:
            request.headers.pop("authorization", None)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(client, request)
                try:
                    with self._translated():
                        return self._cleaned(await _read(response, MAX_DOCUMENT))
                finally:
                    await self._close(response)
        except TimeoutError:
            raise EngineError(f"{url}: the server took longer than {timeout_s:g} s") from None

    async def post(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> bytes:
        """Send a request and read the whole answer.

        Raises:
            InvalidRequest, RequestTooLarge: the server refuses it.
            Unreachable: there is no server.
            EngineError: anything else.
        """
        response = await self._request(path, body, headers)
        try:
            with self._translated():
                return self._cleaned(await _read(response, MAX_DOCUMENT))
        finally:
            await self._close(response)

    @asynccontextmanager
    async def stream(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a request and hand out the bytes of its answer; leaving closes the connection.

        Raises: see ``post``.
        """
        response = await self._request(path, body, headers)
        try:
            kind = self.clean(response.headers.get("content-type", ""))
            if not kind.startswith("text/event-stream"):
                raise BadStream(f"the server answered with {kind[:60]!r}, not with a stream")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise BadStream("the server compressed its answer unasked")
            yield self._bytes(response)
        finally:
            await self._close(response)

    async def _bytes(self, response: httpx.Response) -> AsyncIterator[bytes]:
        with self._translated():
            async for chunk in _body(response):
                yield chunk

    async def _close(self, response: httpx.Response) -> None:
        """Close, whatever comes: one whose closing is cancelled counts as in use for ever."""
        closing = asyncio.ensure_future(response.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closed)
        await asyncio.shield(closing)

    def _closed(self, closing: asyncio.Future[None]) -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and closing.exception() is not None:
            logger.debug("a connection did not close in order: %s", type(closing.exception()))

    async def _request(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str]
    ) -> httpx.Response:
        """Send until the server takes it: only what it surely did not begin is sent again."""
        client = _opened(self._client)
        pause_s = self._settings.retry_backoff_s
        for left in range(self._settings.retries, -1, -1):
            request = client.build_request(
                "POST", self.base + path, json=body, headers=dict(headers)
            )
            try:
                return await self._send(client, request)
            except (Unreachable, Refused) as exc:
                if not left or (isinstance(exc, Refused) and exc.status not in NOT_TAKEN):
                    raise
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        raise AssertionError("the last try returns or raises")

    async def _send(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        with self._translated():
            response = await client.send(request, stream=True)
        if response.status_code == 200:
            return response
        try:
            with self._translated():
                body = await _read(response, MAX_ERROR, cut=True)
        finally:
            await self._close(response)
        raise refusal(response.status_code, self._cleaned(body))

    def _translated(self) -> _Translated:
        return _Translated(self)

    def clean(self, text: str) -> str:
        """Take the key out of what the server says, before any of it gets into an error."""
        return text.replace(self._key, HIDDEN) if self._key else text

    def _cleaned(self, body: bytes) -> bytes:
        return body.replace(self._key.encode(), HIDDEN.encode()) if self._key else body

    def translate(self, exc: httpx.HTTPError | httpx.StreamError) -> EngineError:
        """An error of httpx in our words."""
        said = self.clean(f"{type(exc).__name__}: {exc}")[:200].rstrip(": ")
        if isinstance(exc, (httpx.ConnectError, httpx.ConnectTimeout)):
            return Unreachable(f"the server at {self.base} cannot be reached ({said})")
        return EngineError(f"the connection to the server broke ({said})")


class _Translated:
    """Turns errors of httpx into ours; the originals, which hold the request, are dropped."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        del kind, trace
        if isinstance(exc, (httpx.HTTPError, httpx.StreamError)):
            raise self._upstream.translate(exc) from None


def _opened(client: httpx.AsyncClient | None) -> httpx.AsyncClient:
    if client is None:
        raise EngineError("the engine is not running")
    return client


def _body(response: httpx.Response) -> httpx.AsyncByteStream:
    """The bytes. httpx's own iterators close the response themselves, where nothing shields it."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream


async def _read(response: httpx.Response, most: int, *, cut: bool = False) -> bytes:
    body = bytearray()
    async for chunk in _body(response):
        body += chunk
        if len(body) > most:
            if cut:
                break
            raise BadStream(f"the server sent a document of more than {most} bytes")
    return bytes(body[:most])
