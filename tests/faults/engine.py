"""An engine for fault tests: token ``i`` of every answer is ``i``, at the pace a request asks for.

What a request asks for is said by its first prompt tokens. What happens to requests goes into a
journal. Its room, and how it hands off, come from the environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from inferq.engines import Capacity, Chunk, Engine
from inferq.engines.base import Received
from inferq.errors import EngineError, KvLost, RequestTooLarge
from inferq.messages import FinishReason, Handoff, Request
from inferq.settings import Settings
from inferq.transfer.base import Transfer
from tests.faults.journal import Journal, Shape
from tests.faults.meeting import Fetching, Giving, Parted

JOURNAL = "FAULTS_JOURNAL"
SLOTS, BLOCKS, MODEL_LEN = "FAULTS_SLOTS", "FAULTS_BLOCKS", "FAULTS_MODEL_LEN"
#: sequential or concurrent.
FAMILY = "FAULTS_FAMILY"
#: By what KV caches may be fetched; all that the transfer offers, if empty.
PROTOCOLS = "FAULTS_PROTOCOLS"
#: How long a half of a concurrent pair waits for the other one, seconds.
MEET_S = "FAULTS_MEET_S"
BLOCK_SIZE = 16
#: As the first prompt token: the process that starts this request dies.
POISON = 66_666
#: As the first prompt token: its prefill fails.
BROKEN = 66_667
TOKENS_PER_BATCH = 65_536
#: A request that waits looks so often whether it was aborted, seconds.
LOOK_S = 0.02
CANCELLED = Chunk(finish_reason=FinishReason.CANCELLED.value)


class Run:
    """A request at this engine. ``what`` it comes to stands in the journal."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.is_aborted = False
        self.what = "abort"

    async def wait_until(self, due_at: float) -> bool:
        """Wait; False as soon as the request was aborted."""
        while not self.is_aborted:
            left_s = due_at - time.monotonic()
            await asyncio.sleep(max(0.0, min(left_s, LOOK_S)))
            if left_s <= LOOK_S:
                break
        return not self.is_aborted


class CountingEngine(Engine):
    """Counts; ``max_tokens`` is the length of every answer."""

    resumes: ClassVar[bool] = True
    transfer_protocols: tuple[str, ...] = ("memfd", "tcp")

    def __init__(self) -> None:
        self._slots = int(os.environ.get(SLOTS, "64"))
        self._total_blocks = int(os.environ.get(BLOCKS, "4096"))
        self._model_len = int(os.environ.get(MODEL_LEN, "8192"))
        self._protocols = os.environ.get(PROTOCOLS, "").split()
        self._meet_s = float(os.environ.get(MEET_S, "2"))
        self._journal = Journal(os.environ.get(JOURNAL, os.devnull))
        self._runs: dict[str, Run] = {}
        self._transfer: Transfer

    def use_transfer(self, transfer: Transfer) -> None:
        """Sequential handoffs go this way."""
        self._transfer = transfer

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """End all iterators at their next step."""
        for name in list(self._runs):
            self.abort(name)

    def capacity(self) -> Capacity:
        """Blocks of what runs are taken, prompt and answer at once."""
        runs = list(self._runs.values())
        return Capacity(
            block_size=BLOCK_SIZE,
            total_blocks=self._total_blocks,
            free_blocks=max(0, self._total_blocks - sum(run.blocks for run in runs)),
            total_slots=self._slots,
            free_slots=max(0, self._slots - len(runs)),
            tokens_per_batch=TOKENS_PER_BATCH,
            max_model_len=self._model_len,
        )

    def count_tokens(self, request: Request) -> int:
        """Length of the prompt; text counts a token a character."""
        return len(request.prompt_token_ids or request.prompt or "x")

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The whole answer."""
        return self._count("start", request, self._blocks(request, request.max_tokens), 0)

    def prefill(self, request: Request, produced: Sequence[int] = ()) -> AsyncIterator[Chunk]:
        """The first token, or the one behind those ``produced``, and a KV cache of known bytes."""
        if list(produced) != list(range(len(produced))):
            raise EngineError(f"these are no tokens of ours: {produced}")
        blocks = self._blocks(request, len(produced) + 1)
        if self.handoff == "concurrent":
            return self._prefill_for(request, blocks)
        return self._prefill(request, blocks, len(produced))

    async def receive(self, handoff: Handoff) -> Received:
        """Fetch it, and compare it with what it must be."""
        if handoff.family == "concurrent":
            return Received()
        fetched = await self._transfer.fetch(handoff.kv, handoff.protocols)
        self._check(handoff.request_id, len(handoff.token_ids), fetched.data)
        return Received(fetched.data, fetched.protocol, len(fetched.data), fetched.seconds)

    def decode(
        self, request: Request, handoff: Handoff, received: Received
    ) -> AsyncIterator[Chunk]:
        """The rest; all of it when the halves are concurrent."""
        blocks = self._blocks(request, request.max_tokens)
        if handoff.family == "concurrent":
            return self._decode_with(request, blocks, handoff.kv["room"])
        del received
        return self._count("decode", request, blocks, len(handoff.token_ids))

    def abort(self, request_id: str) -> bool:
        """The iterator ends at its next step."""
        run = self._runs.get(request_id)
        if run is None:
            return False
        run.is_aborted = True
        return True

    def _blocks(self, request: Request, tokens: int) -> int:
        size = self.count_tokens(request) + tokens
        if size > min(self._model_len, self._total_blocks * BLOCK_SIZE):
            raise RequestTooLarge("max_tokens", f"{size} tokens can never fit")
        return -(-size // BLOCK_SIZE)

    @contextmanager
    def _run(self, what: str, request: Request, blocks: int) -> Iterator[Run]:
        name, run = request.request_id, Run(blocks)
        if name in self._runs:
            raise EngineError(f"{name} runs here already")
        self._runs[name] = run
        self._journal.write(what, name)
        if Shape.of(request).pace_ms == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            yield run
        finally:
            self._journal.write(run.what, name)
            del self._runs[name]

    async def _count(
        self, what: str, request: Request, blocks: int, first: int
    ) -> AsyncIterator[Chunk]:
        with self._run(what, request, blocks) as run:
            async for chunk in self._tokens(request, run, first):
                yield chunk

    async def _tokens(self, request: Request, run: Run, first: int) -> AsyncIterator[Chunk]:
        due_at = time.monotonic()
        for token in range(first, request.max_tokens):
            due_at += Shape.of(request).pace_ms / 1000
            if not await run.wait_until(due_at):
                yield CANCELLED
                return
            is_last = token + 1 == request.max_tokens
            if is_last:
                run.what = "end"
            yield Chunk((token,), "", FinishReason.LENGTH.value if is_last else None)

    async def _prefill(self, request: Request, blocks: int, at: int) -> AsyncIterator[Chunk]:
        with self._run("prefill", request, blocks) as run:
            if not await run.wait_until(time.monotonic() + Shape.of(request).prefill_ms / 1000):
                yield CANCELLED
                return
            _check_sound(request)
            if at + 1 == request.max_tokens:
                run.what = "end"
                yield Chunk((at,), "", FinishReason.LENGTH.value)
                return
            yield Chunk((at,))
            handoff = await self._export(request, at + 1)
            if run.is_aborted:
                self._transfer.free([request.request_id])
                yield CANCELLED
                return
            # From here on somebody knows of the KV cache, and fetches or frees it.
            run.what = "handed"
            yield Chunk(handoff=handoff)

    async def _export(self, request: Request, tokens: int) -> Handoff:
        name, shape = request.request_id, Shape.of(request)

        async def fill(memory: memoryview) -> None:
            await asyncio.sleep(shape.export_ms / 1000)
            memory[:] = kv_cache(name, tokens, len(memory))

        offer = await self._transfer.offer(name, shape.kv_kib * 1024, fill)
        self._journal.write("export", name)
        return Handoff(
            request_id=name,
            protocols=tuple(p for p in offer.protocols if p in (self._protocols or (p,))),
            prompt_tokens=self.count_tokens(request),
            token_ids=tuple(range(tokens)),
            kv=offer.kv,
        )

    def _check(self, name: str, tokens: int, data: memoryview) -> None:
        if data != kv_cache(name, tokens, len(data)):
            self._journal.write("corrupt", name)
            raise EngineError(f"{name}: this is not its KV cache")
        self._journal.write("fetch", name)

    async def _prefill_for(self, request: Request, blocks: int) -> AsyncIterator[Chunk]:
        """Concurrent: give the KV cache to whoever comes."""
        shape = Shape.of(request)
        with self._run("prefill", request, blocks) as run:
            async with Giving(self._meet_s, lambda: run.is_aborted) as giving:
                handoff = Handoff(
                    request_id=request.request_id,
                    family="concurrent",
                    prompt_tokens=self.count_tokens(request),
                    kv={"room": giving.room},
                )
                yield Chunk(handoff=handoff)
                _check_sound(request)
                if not await run.wait_until(time.monotonic() + shape.prefill_ms / 1000):
                    yield CANCELLED
                    return
                yield Chunk((0,))
                try:
                    data = kv_cache(request.request_id, 1, shape.kv_kib * 1024)
                    await giving.give(data, shape.export_ms / 1000)
                except Parted as exc:
                    if not run.is_aborted:
                        raise EngineError(f"the decode half: {exc}") from exc
                    yield CANCELLED
                    return
                run.what = "handed"

    async def _decode_with(self, request: Request, blocks: int, room: str) -> AsyncIterator[Chunk]:
        """Concurrent: meet the prefill half, then say the whole answer."""
        with self._run("decode", request, blocks) as run:
            try:
                data = await Fetching(room, self._meet_s, lambda: run.is_aborted).fetch()
            except Parted as exc:
                if not run.is_aborted:
                    raise KvLost(f"the prefill half: {exc}") from exc
                yield CANCELLED
                return
            self._check(request.request_id, 1, memoryview(data))
            async for chunk in self._tokens(request, run, 0):
                yield chunk


class ConcurrentEngine(CountingEngine):
    """Both halves of a request run at once."""

    handoff = "concurrent"
    resumes: ClassVar[bool] = False
    transfer_protocols = ("socket",)


def _check_sound(request: Request) -> None:
    if Shape.of(request).pace_ms == BROKEN:
        raise EngineError("a broken prefill")


def kv_cache(name: str, tokens: int, nbytes: int) -> bytes:
    """The KV cache of a request: bytes that nothing else has."""
    return hashlib.shake_128(f"{name} {tokens}".encode()).digest(nbytes)


def factory(settings: Settings) -> Engine:
    """What ``engine = "tests.faults.engine:factory"`` calls."""
    del settings
    if os.environ.get(FAMILY) == "concurrent":
        return ConcurrentEngine()
    return CountingEngine()
