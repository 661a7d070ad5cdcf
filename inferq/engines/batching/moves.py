"""KV caches on their way out of the executor and into it."""

from __future__ import annotations

import logging

from inferq.engines.base import Chunk, Received
from inferq.engines.batching.executor import Executor
from inferq.engines.batching.sequence import Sequence
from inferq.errors import EngineError, KvLost
from inferq.messages import Handoff
from inferq.transfer.base import Transfer

logger = logging.getLogger(__name__)


async def send(sequence: Sequence, last: Chunk, executor: Executor, transfer: Transfer) -> Handoff:
    """Export the KV cache of a sequence that is held, and offer it.

    Raises:
        EngineError: it could not be exported, or there is no room to keep it.
    """
    slot, cached = _slot(sequence), sequence.computed
    try:
        nbytes = await executor.kv_bytes(slot, cached)
        offer = await transfer.offer(
            sequence.request.request_id,
            nbytes,
            lambda memory: executor.export_kv(slot, cached, memory),
        )
    except EngineError:
        raise
    except Exception as exc:
        logger.exception("the engine raised when it exported a KV cache")
        raise EngineError(f"the KV cache cannot be exported: {exc}") from exc
    return Handoff(
        request_id=sequence.request.request_id,
        protocols=offer.protocols,
        prompt_tokens=sequence.prompt_tokens,
        token_ids=tuple(sequence.tokens[sequence.prompt_tokens :]),
        text=sequence.replayed + last.text,
        kv=offer.kv,
    )


async def receive(handoff: Handoff, transfer: Transfer) -> Received:
    """Fetch what was offered. Raises KvLost."""
    fetched = await transfer.fetch(handoff.kv, handoff.protocols)
    return Received(fetched.data, fetched.protocol, len(fetched.data), fetched.seconds)


async def load(sequence: Sequence, executor: Executor) -> None:
    """Import what the sequence has received; all but its last token is computed then.

    Raises:
        KvLost: the executor refuses it.
    """
    kv, sequence.received = sequence.received, None
    assert kv is not None
    cached = len(sequence.tokens) - 1
    try:
        await executor.import_kv(_slot(sequence), cached, kv)
    except EngineError as exc:
        raise KvLost(f"the KV cache was refused: {exc}") from exc
    except Exception as exc:
        logger.exception("the engine raised when it imported a KV cache")
        raise KvLost(f"the KV cache was refused: {exc}") from exc
    sequence.computed = cached


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot
