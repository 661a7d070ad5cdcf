"""The engine contract: what a node needs from whatever computes tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import ClassVar, Literal, NamedTuple

from inferq.messages import Handoff, Request


class Capacity(NamedTuple):
    """What an engine holds and what is free, at one moment.

    Blocks are units of KV cache of ``block_size`` tokens. A slot is a request being computed.
    ``tokens_per_batch`` is the most tokens of one step; ``max_model_len`` bounds prompt plus
    answer, in tokens.
    """

    block_size: int
    total_blocks: int
    free_blocks: int
    total_slots: int
    free_slots: int
    tokens_per_batch: int
    max_model_len: int


class Chunk(NamedTuple):
    """Tokens of one request that an engine produced together.

    The last chunk has a ``finish_reason``, or, after a prefill, a ``handoff``.
    """

    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: str | None = None
    handoff: Handoff | None = None


class Engine(ABC):
    """Computes tokens for many requests at once.

    The worker's event loop calls every method, except ``capacity`` and ``count_tokens``,
    which any thread may call. Closing an iterator before its end aborts its request and
    frees what it held.

    The iterators raise:
        InvalidRequest: the request is wrong for this model (a token beyond the vocabulary).
        RequestTooLarge: it can never fit.
        EngineError: the engine could not compute it; other requests are not affected.
    """

    #: sequential: decode starts with what prefill returned. concurrent: both start at once.
    handoff: ClassVar[Literal["sequential", "concurrent"]] = "sequential"
    #: how a KV cache can leave or reach this engine, best first.
    transfer_protocols: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    async def start(self) -> None:
        """Get ready to serve.

        Raises:
            EngineStartError: and says why not.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Abort everything and free all resources. A second call does nothing."""

    @abstractmethod
    def capacity(self) -> Capacity:
        """What is free now. Requests handed to ``generate`` count from that call on."""

    @abstractmethod
    def count_tokens(self, request: Request) -> int:
        """Length of the request's prompt, in tokens.

        Raises:
            InvalidRequest: the request is wrong for this model.
            RequestTooLarge: it can never fit.
        """

    @abstractmethod
    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Prefill and decode on this engine: the whole answer."""

    @abstractmethod
    def prefill(self, request: Request) -> AsyncIterator[Chunk]:
        """Compute the KV cache and the first token; the last chunk has the handoff.

        An answer that ends with its first token has a finish reason instead.
        """

    @abstractmethod
    def decode(self, request: Request, handoff: Handoff) -> AsyncIterator[Chunk]:
        """Continue after the tokens of ``handoff``, which are not repeated."""

    @abstractmethod
    def abort(self, request_id: str) -> bool:
        """End a request now; its iterator ends as cancelled. False when it is not running."""
