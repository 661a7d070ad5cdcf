"""Continuous batching over an executor: one loop of steps for many requests."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from collections.abc import Sequence as Seq
from typing import ClassVar

from inferq.engines.base import Capacity, Chunk, Engine
from inferq.engines.batching.blocks import blocks_for
from inferq.engines.batching.executor import Executor, Limits, Row
from inferq.engines.batching.planner import Planner
from inferq.engines.batching.sequence import Purpose, Sequence
from inferq.errors import (
    EngineError,
    EngineStartError,
    EngineStepError,
    InvalidRequest,
    RequestTooLarge,
)
from inferq.messages import FinishReason, Handoff, Request

logger = logging.getLogger(__name__)

LOCAL_KV = "local"
#: Whole steps that may fail in a row before the executor is restarted.
FAILED_STEPS_BEFORE_RESTART = 3


class BatchingEngine(Engine):
    """Batches sequences step by step; an Executor computes the steps.

    All state changes on the event loop that called ``start``, so there are no locks.
    """

    transfer_protocols: ClassVar[tuple[str, ...]] = (LOCAL_KV,)

    def __init__(self, executor: Executor, *, reserved_output_blocks: int) -> None:
        self._executor = executor
        self._reserved = reserved_output_blocks
        self._numbers = itertools.count()
        self._live: dict[str, Sequence] = {}
        self._kept_kv: OrderedDict[str, bytes] = OrderedDict()
        self._work = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._limits: Limits | None = None
        self._planner: Planner
        self._broken: str | None = None
        self._failed_steps = 0

    async def start(self) -> None:
        """Load the executor and start the loop of steps."""
        self._limits = await self._executor.start()
        self._planner = Planner(self._limits, self._reserved)
        self._loop_task = asyncio.create_task(self._steps(), name="inferq-engine")

    async def stop(self) -> None:
        """End every sequence as cancelled and unload the executor."""
        task, self._loop_task = self._loop_task, None
        if task is None:
            return
        for request_id in list(self._live):
            self.abort(request_id)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._executor.stop()

    def capacity(self) -> Capacity:
        """What is free, less what waiting sequences will take."""
        limits = self._started()
        return Capacity(
            block_size=limits.block_size,
            total_blocks=limits.total_blocks,
            free_blocks=self._planner.free_blocks,
            total_slots=limits.max_slots,
            free_slots=self._planner.free_slots,
            tokens_per_batch=limits.tokens_per_batch,
            max_model_len=limits.max_model_len,
        )

    def count_tokens(self, request: Request) -> int:
        """Length of the prompt, tokenized when it is text."""
        prompt = self._executor.tokenize(request)
        check_fit(request, prompt, self._started())
        return len(prompt)

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Prefill and decode here."""
        return self._stream(self._enter(request, Purpose.WHOLE))

    def prefill(self, request: Request) -> AsyncIterator[Chunk]:
        """Compute the prompt and one token, and keep the KV cache for ``decode``."""
        return self._stream(self._enter(request, Purpose.PREFILL))

    def decode(self, request: Request, handoff: Handoff) -> AsyncIterator[Chunk]:
        """Continue from the kept KV cache, or compute it again when it is gone."""
        kept = self._kept_kv.pop(str(handoff.kv.get("key")), None)
        return self._stream(self._enter(request, Purpose.WHOLE, handoff.token_ids, kept))

    def abort(self, request_id: str) -> bool:
        """End the request; its iterator gets a last chunk that says cancelled."""
        sequence = self._live.get(request_id)
        if sequence is None:
            return False
        self._end(sequence, Chunk(finish_reason=FinishReason.CANCELLED.value))
        return True

    def _started(self) -> Limits:
        if self._limits is None:
            raise EngineError("the engine has not been started")
        return self._limits

    def _enter(
        self,
        request: Request,
        purpose: Purpose,
        produced: Seq[int] = (),
        kv: bytes | None = None,
    ) -> Sequence:
        limits = self._started()
        if self._broken is not None or self._loop_task is None:
            raise EngineError(f"the engine is down: {self._broken or 'it was stopped'}")
        if request.request_id in self._live:
            raise InvalidRequest("request_id", f"{request.request_id!r} is running on this engine")
        prompt = self._executor.tokenize(request)
        check_fit(request, prompt, limits)
        sequence = Sequence(
            next(self._numbers), request, [*prompt, *produced], purpose, len(produced)
        )
        sequence.imported_kv = kv
        self._live[request.request_id] = sequence
        self._planner.add(sequence, self._open)
        self._work.set()
        return sequence

    async def _stream(self, sequence: Sequence) -> AsyncIterator[Chunk]:
        try:
            while True:
                chunk = await sequence.output.get()
                yield chunk
                if chunk.finish_reason is not None or chunk.handoff is not None:
                    return
        finally:
            self._end(sequence, Chunk(finish_reason=FinishReason.CANCELLED.value))

    def _open(self, sequence: Sequence) -> None:
        """A sequence has got its room: at the start, or again after a preemption."""
        assert sequence.slot is not None
        prompt = sequence.tokens[: sequence.prompt_tokens]
        self._executor.open_slot(sequence.slot, sequence.request, prompt)
        kv, sequence.imported_kv = sequence.imported_kv, None
        if kv is not None:
            self._executor.import_kv(sequence.slot, kv)
            sequence.computed = len(sequence.tokens) - 1

    def _preempt(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        self._executor.evict(sequence.slot)

    def _end(self, sequence: Sequence, last: Chunk | BaseException) -> None:
        """Free what a sequence holds and close its channel; a second call does nothing."""
        if self._live.get(sequence.request.request_id) is not sequence:
            return
        del self._live[sequence.request.request_id]
        if sequence.slot is not None:
            self._executor.close_slot(sequence.slot)
        self._planner.remove(sequence)
        sequence.output.put(last, last=True)
        self._planner.start_waiting(self._open)
        self._work.set()

    async def _steps(self) -> None:
        while True:
            if not self._live:
                self._work.clear()
                await self._work.wait()
            planned = self._planner.plan(self._preempt)
            if not planned:
                self._planner.start_waiting(self._open)
                planned = self._planner.plan(self._preempt)
            results = await self._run(planned)
            for (sequence, row), result in zip(planned, results, strict=True):
                if not sequence.ended:
                    self._commit(sequence, row, result)
            await self._check_health(results)
            self._planner.start_waiting(self._open)

    async def _run(self, planned: list[tuple[Sequence, Row]]) -> list[int | EngineStepError | None]:
        """Run a step; when it fails, halve it until only those at fault have failed."""
        planned_rows = [row for _, row in planned]
        try:
            return list(await self._executor.run(planned_rows))
        except EngineStepError as exc:
            error = exc
        except Exception as exc:
            logger.exception("the engine raised in a step of %d rows", len(planned))
            error = EngineStepError(f"{type(exc).__name__}: {exc}")
        if len(planned) == 1:
            return [error]
        half = len(planned) // 2
        return [*await self._run(planned[:half]), *await self._run(planned[half:])]

    def _commit(self, sequence: Sequence, row: Row, result: int | EngineStepError | None) -> None:
        if isinstance(result, EngineStepError):
            self._end(sequence, result)
            return
        sequence.computed = row.position + len(row.tokens)
        if result is None:
            return
        sequence.tokens.append(result)
        end = self._executor.is_end(result)
        piece = sequence.answer.push(
            result, b"" if end else self._executor.piece(result), is_end=end
        )
        chunk = Chunk((result,), piece.text, piece.finish_reason and piece.finish_reason.value)
        if chunk.finish_reason is not None:
            self._end(sequence, chunk)
        elif sequence.purpose is Purpose.PREFILL:
            self._end(sequence, chunk._replace(handoff=self._hand_off(sequence, chunk)))
        else:
            sequence.output.put(chunk, last=False)

    def _hand_off(self, sequence: Sequence, chunk: Chunk) -> Handoff:
        assert sequence.slot is not None
        key = f"{sequence.request.request_id}/{sequence.number}"
        self._kept_kv[key] = self._executor.export_kv(sequence.slot)
        while len(self._kept_kv) > self._started().max_slots:
            self._kept_kv.popitem(last=False)
        return Handoff(
            request_id=sequence.request.request_id,
            protocol=LOCAL_KV,
            prompt_tokens=sequence.prompt_tokens,
            token_ids=chunk.token_ids,
            text=chunk.text,
            kv={"key": key},
        )

    async def _check_health(self, results: list[int | EngineStepError | None]) -> None:
        """Restart an executor that computes nothing any more; give up when that fails."""
        failed = [r for r in results if isinstance(r, EngineStepError)]
        self._failed_steps = (
            self._failed_steps + 1 if results and len(failed) == len(results) else 0
        )
        if self._failed_steps < FAILED_STEPS_BEFORE_RESTART:
            return
        logger.error("the engine failed %d steps in a row: %s", self._failed_steps, failed[-1])
        self._failed_steps = 0
        await self._restart()

    async def _restart(self) -> None:
        lost = EngineStepError("the engine was restarted")
        for sequence in list(self._live.values()):
            self._end(sequence, lost)
        self._kept_kv.clear()
        try:
            await self._executor.stop()
            await self._executor.start()
        except EngineStartError as exc:
            self._broken = str(exc)
            logger.critical("the engine did not come back: %s", exc)


def check_fit(request: Request, prompt: Seq[int], limits: Limits) -> None:
    """Refuse what no amount of waiting would make fit.

    Raises:
        InvalidRequest: the prompt has no token, or one beyond the vocabulary.
        RequestTooLarge: prompt and answer exceed the model's length or the whole KV cache.
    """
    if not prompt:
        raise InvalidRequest("prompt", "has no tokens")
    if max(prompt) >= limits.vocab_size:
        raise InvalidRequest(
            "prompt_token_ids", f"{max(prompt)} is beyond the vocabulary of {limits.vocab_size}"
        )
    longest = min(limits.max_model_len, limits.total_blocks * limits.block_size)
    total = len(prompt) + request.max_tokens
    if total > longest or blocks_for(total, limits.block_size) > limits.total_blocks:
        raise RequestTooLarge(
            "max_tokens" if len(prompt) < longest else "prompt",
            f"{len(prompt)} prompt tokens and {request.max_tokens} answer tokens exceed "
            f"the {longest} tokens that this model and its KV cache hold",
        )
