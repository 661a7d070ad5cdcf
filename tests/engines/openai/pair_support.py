"""Pairs of servers, and the two halves of a request that they answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from inferq import Request
from inferq.engines import Chunk, Engine
from inferq.messages import Handoff
from tests.engines.openai.pairs import (
    Fabric,
    FastDeployStandIn,
    PairStandIn,
    SGLangStandIn,
    VllmStandIn,
)
from tests.engines.openai.support import engine_for, read

PAIRS: dict[str, type[PairStandIn]] = {
    "vllm": VllmStandIn,
    "sglang": SGLangStandIn,
    "fastdeploy": FastDeployStandIn,
}


class Pair(NamedTuple):
    """Two servers, a node in front of each, and what the servers share."""

    prefill: Engine
    decode: Engine
    prefill_server: PairStandIn
    decode_server: PairStandIn
    fabric: Fabric

    def idle(self) -> bool:
        engines = (self.prefill, self.decode)
        return all(e.capacity().free_slots == e.capacity().total_slots for e in engines)


@asynccontextmanager
async def pair_of(flavour: str, **openai: Any) -> AsyncIterator[Pair]:
    fabric = Fabric()
    async with (
        PAIRS[flavour](fabric, "prefill") as one,
        PAIRS[flavour](fabric, "decode") as two,
        engine_for(one, "prefill", **openai) as prefill,
        engine_for(two, "decode", **openai) as decode,
    ):
        yield Pair(prefill, decode, one, two, fabric)


async def first_half(pair: Pair, request: Request) -> tuple[list[Chunk], Handoff, Any]:
    """Prefill up to its handoff; what is left of it must be read beside decode."""
    before: list[Chunk] = []
    chunks = pair.prefill.prefill(request)
    async for chunk in chunks:
        if chunk.handoff is not None:
            assert not chunk.token_ids
            travelled = Handoff.parse(chunk.handoff.model_dump(mode="json"))
            return before, travelled, chunks
        before.append(chunk)
    raise AssertionError("there was no handoff")


async def both_halves(pair: Pair, request: Request) -> tuple[list[Chunk], list[Chunk]]:
    before, handoff, rest = await first_half(pair, request)
    received = await pair.decode.receive(handoff)
    after, left = await asyncio.gather(
        read(pair.decode.decode(request, handoff, received)), read(rest)
    )
    assert not left
    return before, after
