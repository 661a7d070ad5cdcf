"""What a batching engine asks of the thing that computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from inferq.messages import Request


class Limits(NamedTuple):
    """The fixed sizes of an executor; see Capacity for the words."""

    block_size: int
    total_blocks: int
    max_slots: int
    tokens_per_batch: int
    max_model_len: int
    vocab_size: int


class Row(NamedTuple):
    """One sequence's part of a step.

    ``tokens`` stand at ``position`` and after. With ``samples`` the step returns the token
    that follows them; ``ban_end`` forbids it to be one that ends the answer.
    """

    slot: int
    tokens: Sequence[int]
    position: int
    samples: bool
    ban_end: bool


class Executor(Protocol):
    """Computes steps. A slot names a sequence between ``open_slot`` and ``close_slot``."""

    async def start(self) -> Limits:
        """Load. Raises EngineStartError."""

    async def stop(self) -> None:
        """Free everything."""

    def tokenize(self, request: Request) -> Sequence[int]:
        """The prompt's tokens. Any thread may call it. Raises InvalidRequest."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token; may be part of a character."""

    def is_end(self, token: int) -> bool:
        """Whether the model ends its answer with this token."""

    def open_slot(self, slot: int, request: Request, prompt: Sequence[int]) -> None:
        """A sequence takes this slot."""

    def close_slot(self, slot: int) -> None:
        """The sequence is over; its KV cache may go."""

    def evict(self, slot: int) -> None:
        """Drop the slot's KV cache; the sequence will be computed again from position 0."""

    async def run(self, rows: Sequence[Row]) -> list[int | None]:
        """Compute one step; one result a row, None where it does not sample.

        A run that raised may be repeated with the same rows or with fewer.
        """

    async def kv_bytes(self, slot: int, tokens: int) -> int:
        """Size of the slot's KV cache, of so many tokens, as ``export_kv`` writes it."""

    async def export_kv(self, slot: int, tokens: int, memory: memoryview) -> None:
        """Write the slot's KV cache into memory of the size that ``kv_bytes`` said."""

    async def import_kv(self, slot: int, tokens: int, memory: memoryview) -> None:
        """Give an open slot the KV cache of another, of so many tokens.

        Raises EngineError when it is refused; the slot is empty then.
        """
