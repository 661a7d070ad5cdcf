"""Strict stand-ins for the servers, written from what those projects document.

They refuse what the real ones would not understand: an unknown field, a missing one, a pair that
does not fit. Tokens follow from the prompt, the seed and the position.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, ClassVar, Self

from tests.engines.openai.wire import (
    VOCABULARY,
    event,
    prompt_length,
    reply,
    send,
    token_of,
    word,
)

MODEL = "tiny"
COMMON = frozenset(
    (
        "model",
        "prompt",
        "messages",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "stream",
        "stream_options",
    )
)


class Bad(Exception):
    """Answered with a status and the project's form of an error."""

    def __init__(self, message: str, status: int = 400, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": "BadRequestError", "code": status, **more}


class Call:
    """A request that has come: ``gone`` is set when the client left before the end."""

    def __init__(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self.gone = asyncio.Event()
        self.ended = asyncio.Event()


class StandIn:
    """An OpenAI-compatible server on 127.0.0.1, in this event loop."""

    flavour: ClassVar[str] = "plain"
    own_fields: ClassVar[frozenset[str]] = frozenset()
    scheme = "http"

    def __init__(self, *, key: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.key = key
        self.calls: list[Call] = []
        self.running: set[Call] = set()
        self.arrived = asyncio.Condition()
        #: Bytes or statuses to answer with, instead of what would be right; one for each call.
        self.faults: deque[bytes | int] = deque()
        #: Tokens that may be sent; none: as many as are wanted.
        self.allowed: asyncio.Semaphore | None = None
        #: Answers begin when it is set.
        self.gate: asyncio.Event | None = None
        self.end_after: int | None = None
        self.models: list[dict[str, Any]] = [{"id": MODEL, "object": "model"}]
        self.metrics: str | None = None
        self.is_well = True
        self.connections = 0
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.die()

    async def start(self) -> None:
        """Listen, on the port it had if it had one."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Close everything, as a killed process does."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def call(self, number: int = 0) -> Call:
        """Wait for a call that computes."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.calls) > number)
        return self.calls[number]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        try:
            if self.key and headers.get("authorization") != f"Bearer {self.key}":
                given = headers.get("authorization", "no key").removeprefix("Bearer ")
                raise Bad(f"Incorrect API key provided: {given}", 401)
            if method == "GET":
                await reply(writer, *self.get(path))
            else:
                await self._compute(Call(path, headers, json.loads(raw)), reader, writer)
        except Bad as bad:
            await reply(writer, bad.status, json.dumps({"error": bad.error}))
        return True

    def get(self, path: str) -> tuple[int, str]:
        """A page."""
        if path == "/v1/models":
            return 200, json.dumps({"object": "list", "data": self.models})
        if path == "/health" and self.flavour != "plain":
            return (200, "") if self.is_well else (503, "not well")
        if path == "/metrics" and self.metrics is not None:
            return (200, self.metrics) if self.is_well else (503, "not well")
        return 404, json.dumps({"detail": "Not Found"})

    async def _compute(
        self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if call.path not in ("/v1/completions", "/v1/chat/completions"):
            raise Bad("Not Found", 404)
        async with self.arrived:
            self.calls.append(call)
            self.arrived.notify_all()
        if self.faults:
            fault = self.faults.popleft()
            if isinstance(fault, int):
                raise Bad("try again later", fault)
            writer.write(fault)
            await writer.drain()
            raise ConnectionError
        self.check(call.body, is_chat="chat" in call.path)
        self.running.add(call)
        left = asyncio.create_task(reader.read(1))
        work = asyncio.create_task(self._answer(call, writer))
        try:
            await asyncio.wait({left, work}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            else:
                call.gone.set()
        finally:
            for task in (left, work):
                task.cancel()
            with suppress(Bad, ConnectionError):
                await asyncio.gather(work, left, return_exceptions=True)
            self.running.discard(call)
            call.ended.set()
            if call.gone.is_set():
                self.left(call)

    def left(self, call: Call) -> None:
        """The client has gone before the end."""

    def check(self, body: dict[str, Any], *, is_chat: bool) -> None:
        """Refuse what this server would not understand."""
        for name in sorted(set(body) - COMMON - self.own_fields):
            raise Bad(f"{name}: Extra inputs are not permitted", param=name)
        if body.get("model") != MODEL:
            raise Bad(f"The model {body.get('model')!r} does not exist.", 404)
        if ("messages" in body) is not is_chat or ("prompt" in body) is is_chat:
            raise Bad("messages or prompt is missing")
        if body.get("stream_options") and not body.get("stream"):
            raise Bad("Stream options can only be defined when `stream=True`.")
        prompt = body.get("prompt")
        if isinstance(prompt, list) and max(prompt) >= VOCABULARY:
            raise Bad(f"Token id {max(prompt)} is out of vocabulary", param="prompt_token_ids")
        if body.get("min_tokens", 0) > body["max_tokens"]:
            raise Bad("min_tokens must be less than or equal to max_tokens", param="min_tokens")

    async def _answer(self, call: Call, writer: asyncio.StreamWriter) -> None:
        if not call.body.get("stream"):
            await reply(writer, 200, json.dumps(await self.whole(call)))
            return
        chunks = self.stream(call)
        first = await anext(chunks)  # an error before the first token has a status of its own
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        await send(writer, first)
        async for chunk in chunks:
            await send(writer, chunk)
        await send(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def whole(self, call: Call) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        raise Bad("this stand-in only streams")

    async def stream(self, call: Call) -> AsyncIterator[dict[str, Any]]:
        """The events of an answer."""
        is_chat = "chat" in call.path
        pieces = list(self.tokens(call.body))
        if self.gate is not None:
            await self.gate.wait()
        await self.before_first(call)
        if is_chat:
            yield event(is_chat, "", None, {"role": "assistant"})
        for token, reason in pieces:
            if self.allowed is not None:
                await self.allowed.acquire()
            chunk = event(is_chat, word(token), reason)
            self.name_token(chunk["choices"][0], token)
            yield chunk
        usage = {"prompt_tokens": prompt_length(call.body), "completion_tokens": len(pieces)}
        yield {"object": "chunk", "choices": [], "usage": usage}

    async def before_first(self, call: Call) -> None:
        """A place for a pair to meet."""

    def name_token(self, choice: dict[str, Any], token: int) -> None:
        """Where this server names tokens."""

    def tokens(self, body: dict[str, Any]) -> Iterator[tuple[int, str | None]]:
        """The answer, token by token, the last one with its reason."""
        for at in range(body["max_tokens"]):
            token = token_of(body, at)
            may_end = at + 1 >= body.get("min_tokens", 0)
            ends = self.end_after is not None and at + 1 >= self.end_after
            if may_end and (
                token in body.get("stop_token_ids", ()) or (ends and not body.get("ignore_eos"))
            ):
                yield token, "stop"
                return
            yield token, "length" if at + 1 == body["max_tokens"] else None
