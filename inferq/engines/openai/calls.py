"""The calls to the server that a request makes: its whole answer, its prefill, its decode."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from inferq.engines.base import Chunk
from inferq.engines.openai.body import body_of, path_of
from inferq.engines.openai.counting import Counter
from inferq.engines.openai.failures import Refused
from inferq.engines.openai.flavours import FLAVOURS
from inferq.engines.openai.http import Upstream
from inferq.engines.openai.pairs import (
    Early,
    FastDeployPair,
    SGLangPair,
    kept_kv,
    remote_decode,
    remote_prefill,
    upstream_id,
)
from inferq.engines.openai.pieces import Piece, Pieces, read_answer
from inferq.engines.openai.sse import BadStream, events
from inferq.errors import EngineError, KvLost
from inferq.messages import FinishReason, Handoff, Request
from inferq.settings import OpenAISettings

#: Longest answer of a server: so much, and so much for each token.
MAX_ANSWER_BYTES = 1_048_576
MAX_TOKEN_BYTES = 16_384
#: The server may take this long to close an answer that has ended, seconds.
CLOSING_S = 1.0
#: Requests whose first token is remembered to have been sent early.
MAX_REMEMBERED = 4096


class Calls:
    """Makes calls; the iterators raise as ``Engine`` says."""

    def __init__(
        self, settings: OpenAISettings, upstream: Upstream, counter: Counter, model: str
    ) -> None:
        self._settings = settings
        self._traits = FLAVOURS[settings.flavour]
        self._upstream = upstream
        self._counter = counter
        self._model = model
        self._sent_early: OrderedDict[str, None] = OrderedDict()

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the server wants it.

        Raises:
            InvalidRequest: the server cannot obey a field.
        """
        return body_of(request, self._model, self._settings.flavour)

    async def whole(
        self, request: Request, extra: Mapping[str, Any], name: str
    ) -> AsyncGenerator[Chunk, None]:
        """The answer, with ``extra`` fields in the request."""
        pieces, last = Pieces(self._traits.ids), None
        async with aclosing(self._events(request, extra, name)) as stream:
            async for data in stream:
                piece = pieces.read(data)
                self._counter.learn(request, piece.prompt_tokens)
                chunk = pieces.take(piece)
                if chunk is None:
                    continue
                if chunk.finish_reason is not None:
                    last = chunk
                    break
                yield chunk
            if last is not None:
                await self._close(request, stream, pieces)
        if last is None:
            raise BadStream("the server closed its answer before the end")
        yield last

    async def vllm_prefill(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Compute the KV cache and one token; the server keeps the cache for decode."""
        if request.max_tokens == 1:
            async with aclosing(self.whole(request, {}, upstream_id(request))) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        name = upstream_id(request)
        answer = await self._upstream.post(
            path_of(request), remote_decode(self.body(request)), _named(name)
        )
        piece = read_answer(answer, self._traits.ids)
        self._counter.learn(request, piece.prompt_tokens)
        if piece.finish_reason is None:
            raise BadStream("the server's answer has no finish_reason")
        if piece.finish_reason == FinishReason.STOP:
            yield Chunk(piece.token_ids, piece.text, piece.finish_reason)
            return
        early = self._early(request, piece)
        kv = kept_kv(answer, name, early)
        if early is not None:
            self._remember(request.request_id)
            yield Chunk((early.token_id,), early.text)
        yield Chunk(handoff=self._handoff(request, kv, piece.prompt_tokens))

    async def vllm_decode(self, request: Request, handoff: Handoff) -> AsyncGenerator[Chunk, None]:
        """Continue from a cache that another vLLM keeps; begins with the first token again."""
        extra, name, early = remote_prefill(handoff)
        async with aclosing(self._decoded(request, extra, name)) as chunks:
            async for chunk in chunks:
                if early is not None:
                    _agree(chunk, early)
                    early = None
                yield chunk

    async def meeting_prefill(
        self, request: Request, pair: SGLangPair | FastDeployPair
    ) -> AsyncGenerator[Chunk, None]:
        """Say where decode meets, then compute for it.

        Nothing of the answer is passed on: decode says all of it, and the prefill server is done
        only when the cache has crossed, so that it would not be earlier.
        """
        kv = pair.meet(request)
        yield Chunk(handoff=self._handoff(request, kv))
        pieces = Pieces(self._traits.ids)
        async with aclosing(self._events(request, kv, _name_in(request, kv))) as stream:
            async for data in stream:
                piece = pieces.read(data)
                self._counter.learn(request, piece.prompt_tokens)

    async def meeting_decode(
        self, request: Request, handoff: Handoff, pair: SGLangPair | FastDeployPair
    ) -> AsyncGenerator[Chunk, None]:
        """Meet the prefill server, and say the whole answer."""
        extra = pair.fields(handoff.kv)
        async with aclosing(self._decoded(request, extra, _name_in(request, extra))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _decoded(
        self, request: Request, extra: Mapping[str, Any], name: str
    ) -> AsyncGenerator[Chunk, None]:
        """The whole answer; a server that fails before its first token has not got the cache.

        Raises:
            KvLost: so that the request begins anew, here or elsewhere.
        """
        begun = False
        try:
            async with aclosing(self.whole(request, extra, name)) as chunks:
                async for chunk in chunks:
                    begun = True
                    yield chunk
        except EngineError as exc:
            is_ours = isinstance(exc, Refused) and exc.status < 500 and exc.status != 429
            if begun or is_ours:
                raise
            raise KvLost(f"decode did not begin: {exc}") from None

    def _events(
        self, request: Request, extra: Mapping[str, Any], name: str
    ) -> AsyncGenerator[str, None]:
        body = {**self.body(request), **extra}
        if self._settings.flavour == "sglang":
            body["rid"] = name
        return self._read(path_of(request), body, name, request.max_tokens)

    async def _read(
        self, path: str, body: dict[str, Any], name: str, max_tokens: int
    ) -> AsyncGenerator[str, None]:
        most = MAX_ANSWER_BYTES + MAX_TOKEN_BYTES * max_tokens
        async with (
            self._upstream.stream(path, body, _named(name)) as chunks,
            aclosing(events(chunks, most_bytes=most)) as stream,
        ):
            async for data in stream:
                if data == "[DONE]":
                    await _finish(stream)
                    return
                yield self._upstream.clean(data)

    async def _close(self, request: Request, stream: AsyncIterator[str], pieces: Pieces) -> None:
        """Read what follows the end: the counts."""
        with suppress(TimeoutError, EngineError):  # the answer is whole
            async with asyncio.timeout(CLOSING_S):
                async for data in stream:
                    self._counter.learn(request, pieces.read(data).prompt_tokens)

    def _early(self, request: Request, piece: Piece) -> Early | None:
        """The first token, if decode will surely say the same.

        Two servers agree when nothing is left to chance and the text of the token stands alone.
        A request whose token was sent early before has come back: its decode did not agree.
        """
        is_certain = request.temperature == 0 or request.seed is not None
        if not self._settings.early_first_token or not is_certain or request.min_tokens > 1:
            return None
        if request.stop or len(piece.token_ids) != 1 or not piece.text or "�" in piece.text:
            return None
        if request.request_id in self._sent_early:
            return None
        return Early(piece.token_ids[0], piece.text)

    def _remember(self, request_id: str) -> None:
        self._sent_early[request_id] = None
        while len(self._sent_early) > MAX_REMEMBERED:
            self._sent_early.popitem(last=False)

    def _handoff(self, request: Request, kv: dict[str, Any], prompt_tokens: int = 0) -> Handoff:
        return Handoff(
            request_id=request.request_id,
            family=self._traits.family,
            protocols=self._traits.protocols,
            prompt_tokens=prompt_tokens or self._counter.estimate(request),
            kv=kv,
        )


async def _finish(stream: AsyncIterator[str]) -> None:
    """Read up to the end of the answer: only so the connection can be used again."""
    with suppress(TimeoutError, EngineError):
        async with asyncio.timeout(CLOSING_S):
            async for _ in stream:
                pass


def _agree(first: Chunk, early: Early) -> None:
    """Decode must begin with what was sent.

    Raises:
        KvLost: it does not; the answer begins anew rather than being put together from two.
    """
    ids, text = first.token_ids, first.text
    is_same = ids[:1] == (early.token_id,) and text.startswith(early.text)
    if not is_same or (len(ids) == 1 and text != early.text and first.finish_reason is None):
        raise KvLost("the decode server began with another token than the prefill server")


def _name_in(request: Request, kv: Mapping[str, Any]) -> str:
    name = kv.get("request_id")
    return name if isinstance(name, str) else upstream_id(request)


def _named(name: str) -> dict[str, str]:
    return {"x-request-id": name}
