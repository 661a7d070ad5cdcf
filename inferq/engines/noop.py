"""An engine that answers at once, for measuring everything around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

from inferq.engines.base import Capacity, Chunk, Engine, Received
from inferq.messages import FinishReason, Handoff, Request
from inferq.settings import Settings

_PLENTY = 2**40


class NoopEngine(Engine):
    """Yields ``max_tokens`` tokens of no meaning, ``tokens_per_output`` at a time."""

    resumes: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        self._per_output = settings.noop.tokens_per_output
        self._slots = settings.noop.max_slots
        self._live: set[str] = set()

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """End all iterators at their next step."""
        self._live.clear()

    def capacity(self) -> Capacity:
        """Slots are the only bound."""
        free = max(0, self._slots - len(self._live))
        return Capacity(1, _PLENTY, _PLENTY, self._slots, free, _PLENTY, _PLENTY)

    def count_tokens(self, request: Request) -> int:
        """Token ids are counted; text counts a token a character."""
        if request.prompt_token_ids is not None:
            return len(request.prompt_token_ids)
        return len(request.prompt or "") or sum(len(m.content) for m in request.messages or ())

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The whole answer, without waiting."""
        return self._tokens(request, 0, request.max_tokens)

    async def prefill(self, request: Request, produced: Sequence[int] = ()) -> AsyncIterator[Chunk]:
        """One token and a handoff, of no KV cache."""
        at = len(produced)
        if at + 1 >= request.max_tokens:
            async for chunk in self._tokens(request, at, request.max_tokens):
                yield chunk
            return
        self._live.add(request.request_id)
        try:
            yield Chunk((at,))
            if request.request_id not in self._live:
                yield Chunk(finish_reason=FinishReason.CANCELLED.value)
                return
            yield Chunk(
                handoff=Handoff(
                    request_id=request.request_id,
                    prompt_tokens=max(1, self.count_tokens(request)),
                    token_ids=(*produced, at),
                )
            )
        finally:
            self._live.discard(request.request_id)

    def decode(
        self, request: Request, handoff: Handoff, received: Received
    ) -> AsyncIterator[Chunk]:
        """The rest."""
        del received
        return self._tokens(request, len(handoff.token_ids), request.max_tokens)

    def abort(self, request_id: str) -> bool:
        """The iterator ends at its next step."""
        if request_id not in self._live:
            return False
        self._live.discard(request_id)
        return True

    async def _tokens(self, request: Request, start: int, stop: int) -> AsyncIterator[Chunk]:
        self._live.add(request.request_id)
        try:
            for at in range(start, stop, self._per_output):
                if request.request_id not in self._live:
                    yield Chunk(finish_reason=FinishReason.CANCELLED.value)
                    return
                end = min(at + self._per_output, stop)
                reason = FinishReason.LENGTH.value if end == stop else None
                yield Chunk(tuple(range(at, end)), "", reason)
        finally:
            self._live.discard(request.request_id)
