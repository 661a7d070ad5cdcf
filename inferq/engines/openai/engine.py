"""The engine contract, kept by a server on the other end of a connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from inferq.engines.base import Capacity, Chunk, Engine, Received
from inferq.engines.openai.body import check
from inferq.engines.openai.calls import Calls
from inferq.engines.openai.channel import Channel
from inferq.engines.openai.counting import Counter
from inferq.engines.openai.flavours import FLAVOURS
from inferq.engines.openai.http import Unreachable, Upstream
from inferq.engines.openai.metrics import ServerLoad
from inferq.engines.openai.pairs import pair_of, upstream_id
from inferq.engines.openai.room import Room, Ticket
from inferq.engines.openai.server import Served, Server
from inferq.errors import (
    EngineError,
    EngineStartError,
    InferqError,
    InvalidRequest,
    RequestTooLarge,
    SettingsError,
)
from inferq.messages import FinishReason, Handoff, Request
from inferq.settings import Settings

logger = logging.getLogger(__name__)

#: What is assumed of a server that does not say how long its model's context is, tokens.
DEFAULT_MODEL_LEN = 8192
CANCELLED = Chunk(finish_reason=FinishReason.CANCELLED.value)


class _Live:
    """A request that the server computes."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.channel = Channel()
        self.task: asyncio.Task[None] | None = None
        self._is_ending = False

    def end(self) -> None:
        """Cancel the task, once: a second time would break into the closing of its connection."""
        if self.task is not None and not self._is_ending:
            self._is_ending = True
            self.task.cancel()


class OpenAIEngine(Engine):
    """Passes requests on to an OpenAI-compatible server and streams its answers.

    Each request has a task that reads the server's answer; closing the request's iterator, or
    ``abort``, ends the task and with it the connection, by which the server knows.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.openai
        self._reserved = settings.admission.reserved_output_blocks
        traits = FLAVOURS[settings.openai.flavour]
        self.handoff = traits.family
        self.transfer_protocols = traits.protocols
        if settings.role != "mixed" and not traits.protocols:
            raise SettingsError(
                f"openai.flavour={settings.openai.flavour!r}: a {settings.role} node needs a "
                "server that can hand off: fastdeploy, sglang, vllm",
                ["openai.flavour", "role"],
            )
        self._pair = pair_of(settings)
        self._upstream = Upstream(settings.openai)
        self._server = Server(settings.openai, self._upstream)
        self._live: dict[str, _Live] = {}
        self._watch: asyncio.Task[None] | None = None
        self._served = Served("")
        self._room: Room | None = None
        self._counter: Counter
        self._calls: Calls

    async def start(self) -> None:
        """Wait for the server, find its model, and keep looking at it."""
        self._upstream.open()
        try:
            self._served = await self._server.wait()
            load = await self._server.load()
            self._counter = Counter(self._settings, self._upstream.root, self._served.name)
        except BaseException as exc:
            await self._upstream.close()
            if isinstance(exc, EngineError) and not isinstance(exc, EngineStartError):
                raise EngineStartError(f"the server is not well: {exc}") from None
            raise
        self._calls = Calls(self._settings, self._upstream, self._counter, self._served.name)
        self._room = Room(self._limits(load or ServerLoad()))
        self._room.measured(load, frozenset())
        self._watch = asyncio.create_task(self._server.watch(self._room), name="inferq-openai")

    async def stop(self) -> None:
        """Abort everything and close the connections. A second call does nothing."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        tasks = [watch, *(live.task for live in self._live.values() if live.task is not None)]
        for request_id in list(self._live):
            self.abort(request_id)
        watch.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._upstream.close()
        self._counter.close()

    def capacity(self) -> Capacity:
        """What the server measured, less what was sent since."""
        return self._started().now

    def count_tokens(self, request: Request) -> int:
        """Length of the prompt; an estimate for text, unless ``exact_counts`` is set."""
        room = self._started()
        check(request, self._settings.flavour)
        count = self._counter.count(request)
        self._check_fit(request, room.now)
        return count

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The server's whole answer."""
        live = self._enter(request)
        return self._run(request, live, self._calls.whole(request, {}, upstream_id(request)))

    def prefill(self, request: Request, produced: Sequence[int] = ()) -> AsyncIterator[Chunk]:
        """Have the server compute the KV cache, for another server to go on from."""
        del produced  # the protocol cannot go on behind tokens of an answer
        if not self.transfer_protocols:
            raise EngineError(f"a server of the flavour {self._settings.flavour} cannot hand off")
        live = self._enter(request)
        if self._pair is None:
            return self._run(request, live, self._calls.vllm_prefill(request))
        return self._run(request, live, self._calls.meeting_prefill(request, self._pair))

    def decode(
        self, request: Request, handoff: Handoff, received: Received
    ) -> AsyncIterator[Chunk]:
        """Have the server fetch the KV cache itself, and go on."""
        del received
        if not self.transfer_protocols:
            raise EngineError(f"a server of the flavour {self._settings.flavour} cannot go on")
        live = self._enter(request)
        if self._pair is None:
            return self._run(request, live, self._calls.vllm_decode(request, handoff))
        return self._run(request, live, self._calls.meeting_decode(request, handoff, self._pair))

    def abort(self, request_id: str) -> bool:
        """Close the connection of a request; its iterator ends as cancelled."""
        live = self._live.get(request_id)
        if live is None:
            return False
        live.channel.cut(CANCELLED)
        self._leave(request_id, live)
        return True

    def _enter(self, request: Request) -> _Live:
        room = self._started()
        if self._watch is None:
            raise EngineError("the engine is down: it was stopped")
        if request.request_id in self._live:
            raise InvalidRequest("request_id", f"{request.request_id!r} is running on this engine")
        self._check_fit(request, room.now)
        check(request, self._settings.flavour)
        live = _Live(room.enter(self._counter.estimate(request), self._reserved))
        self._live[request.request_id] = live
        return live

    async def _run(
        self, request: Request, live: _Live, chunks: AsyncIterator[Chunk]
    ) -> AsyncIterator[Chunk]:
        if not live.channel.is_over:
            live.task = asyncio.create_task(self._pump(request, live.channel, chunks))
        try:
            while (chunk := await live.channel.get()) is not None:
                yield chunk
        finally:
            self._leave(request.request_id, live)
            if live.task is not None:
                # Not gather: it would pass a second cancellation on to the task.
                await asyncio.wait({live.task})

    async def _pump(self, request: Request, channel: Channel, chunks: AsyncIterator[Chunk]) -> None:
        try:
            async with aclosing(chunks) as closing:  # type: ignore[type-var]
                async for chunk in closing:
                    await channel.put(chunk)
            await channel.put(None)
        except InferqError as exc:
            if isinstance(exc, Unreachable):
                self._server.look_soon()
            await channel.put(exc)
        except Exception as exc:
            logger.exception("request %s", request.request_id)
            await channel.put(EngineError(f"{type(exc).__name__} in the engine"))

    def _leave(self, request_id: str, live: _Live) -> None:
        if self._room is not None:
            self._room.leave(live.ticket)
        if self._live.get(request_id) is live:
            del self._live[request_id]
        live.end()

    def _started(self) -> Room:
        if self._room is None:
            raise EngineError("the engine has not been started")
        return self._room

    def _check_fit(self, request: Request, capacity: Capacity) -> None:
        """Refuse what surely cannot fit; of text only the server knows how long it is."""
        ids = request.prompt_token_ids
        if ids is not None and self._served.vocab_size and max(ids) >= self._served.vocab_size:
            raise InvalidRequest(
                "prompt_token_ids",
                f"{max(ids)} is beyond the vocabulary of {self._served.vocab_size}",
            )
        least = len(ids) if ids is not None else 1
        longest = min(capacity.max_model_len, capacity.total_blocks * capacity.block_size)
        if least + request.max_tokens > longest:
            raise RequestTooLarge(
                "max_tokens" if least < longest else "prompt",
                f"{least} prompt tokens and {request.max_tokens} answer tokens exceed "
                f"the {longest} tokens that the server's model holds",
            )

    def _limits(self, load: ServerLoad) -> Capacity:
        settings = self._settings
        longest = settings.max_model_len or self._served.max_model_len or DEFAULT_MODEL_LEN
        slots = min(settings.max_slots, self._served.slots or settings.max_slots)
        size = load.block_size or settings.block_size
        total = load.total_blocks or settings.total_blocks or slots * -(-longest // size)
        return Capacity(
            block_size=size,
            total_blocks=total,
            free_blocks=total,
            total_slots=slots,
            free_slots=slots,
            tokens_per_batch=settings.tokens_per_batch,
            max_model_len=longest,
        )
