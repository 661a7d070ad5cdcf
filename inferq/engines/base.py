"""The engine contract: what a node needs from whatever computes tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from inferq.messages import Handoff, Request
from inferq.transfer.base import Transfer

Family = Literal["sequential", "concurrent"]


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

    The last chunk has a ``finish_reason``, or, after a prefill, a ``handoff`` (with no tokens).
    A concurrent prefill begins with its ``handoff`` instead, and ends however it ends.
    """

    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: str | None = None
    handoff: Handoff | None = None


class Received(NamedTuple):
    """A KV cache that was brought to an engine, or nothing where the engine fetches it itself.

    ``data`` is the engine's own form of it. ``nbytes`` crossed by ``protocol`` in ``seconds``.
    """

    data: Any = None
    protocol: str = ""
    nbytes: int = 0
    seconds: float = 0.0


class Engine(ABC):
    """Computes tokens for many requests at once.

    The worker's event loop calls every method, except ``capacity`` and ``count_tokens``,
    which any thread may call. Closing an iterator before its end aborts its request and
    frees what it held.

    The iterators raise:
        InvalidRequest: the request is wrong for this model (a token beyond the vocabulary).
        RequestTooLarge: it can never fit.
        EngineError: the engine could not compute it; other requests are not affected.
        KvLost: the KV cache of a handoff cannot be had any more; a new prefill helps.
    """

    #: sequential: decode starts with what prefill returned. concurrent: both start at once.
    handoff: Family = "sequential"
    #: how a KV cache can leave or reach this engine, best first.
    transfer_protocols: tuple[str, ...] = ()
    #: Whether ``prefill`` can go on behind tokens that were produced before.
    resumes: ClassVar[bool] = False

    def use_transfer(self, transfer: Transfer) -> None:
        """Send and fetch KV caches by this; before ``start``.

        An engine that moves them by its own means, or not at all, needs none.
        """
        del transfer

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
    def prefill(self, request: Request, produced: Sequence[int] = ()) -> AsyncIterator[Chunk]:
        """Compute the KV cache and the first token, then hand off.

        ``produced``: tokens of the answer that are known already, for an engine that
        ``resumes``; the chunks go on behind them.

        Sequential: a chunk with the token, as soon as it is known, then one with the handoff; an
        answer that ends with its first token has a finish reason instead. Concurrent: the handoff
        first, then what the prefill side produces, if anything; decode repeats it.
        """

    async def receive(self, handoff: Handoff) -> Received:
        """Bring the KV cache of ``handoff`` here, for ``decode``.

        Raises:
            KvLost: it is gone, or did not arrive whole.
        """
        del handoff
        return Received()

    @abstractmethod
    def decode(
        self, request: Request, handoff: Handoff, received: Received
    ) -> AsyncIterator[Chunk]:
        """Continue behind the tokens of ``handoff``, which are not repeated.

        ``received`` is what ``receive`` brought for this handoff.
        """

    @abstractmethod
    def abort(self, request_id: str) -> bool:
        """End a request now; its iterator ends as cancelled. False when it is not running."""
