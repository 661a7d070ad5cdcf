"""One request inside a batching engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Seq
from enum import StrEnum

from inferq.engines.answer import Answer
from inferq.engines.base import Chunk
from inferq.messages import Request


class Purpose(StrEnum):
    """How far the sequence is computed here."""

    WHOLE = "whole"
    PREFILL = "prefill"


class Sequence:
    """Tokens of a request, how many of them the KV cache holds, and the way out.

    ``number`` counts sequences in order of arrival; it owns the blocks and decides who is
    preempted. ``computed`` counts the tokens whose keys and values are cached.
    """

    def __init__(
        self, number: int, request: Request, tokens: Seq[int], purpose: Purpose, produced: int = 0
    ) -> None:
        self.number = number
        self.request = request
        self.purpose = purpose
        self.prompt_tokens = len(tokens) - produced
        self.tokens = list(tokens)
        self.computed = 0
        #: A KV cache that waits for the sequence to get its slot.
        self.received: memoryview | None = None
        #: What moves its KV cache, in or out, while it is held.
        self.move: asyncio.Task[None] | None = None
        #: Its KV cache is kept for another node, which has not been told yet.
        self.is_offered = False
        self.slot: int | None = None
        self.answer = Answer(request)
        self.output = Channel()
        self.replayed = ""

    def replay(self, piece: Callable[[int], bytes], is_end: Callable[[int], bool]) -> str | None:
        """Bring the answer's text to where the tokens are that were produced before.

        Without it, half a character or half a stop string at the end of one node's tokens would
        be lost on the next. Returns the finish reason if they end the answer.
        """
        for token in self.tokens[self.prompt_tokens :]:
            end = is_end(token)
            text, reason = self.answer.push(token, b"" if end else piece(token), is_end=end)
            self.replayed += text
            if reason is not None:
                return reason.value
        return None

    @property
    def pending(self) -> int:
        """Tokens not yet computed: 1 while decoding, more during prefill."""
        return len(self.tokens) - self.computed

    @property
    def ended(self) -> bool:
        """Whether its iterator has got, or will get, its last chunk or an error."""
        return self.output.closed


class Channel:
    """Chunks on their way from the step loop to one iterator, within one event loop."""

    def __init__(self) -> None:
        self._chunks: deque[Chunk | BaseException] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False

    def put(self, item: Chunk | BaseException, *, last: bool) -> None:
        """Add a chunk, or the error that ends the iterator; nothing after the last one."""
        if self.closed:
            return
        self.closed = last
        self._chunks.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Chunk:
        """The next chunk. Raises the error that was put."""
        while not self._chunks:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item = self._chunks.popleft()
        if isinstance(item, BaseException):
            raise item
        return item
