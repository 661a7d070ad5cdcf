"""Continuous batching over an executor: one loop of steps for many requests."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from collections.abc import Sequence as Seq
from typing import ClassVar

from inferq.engines.base import Capacity, Chunk, Engine, Received
from inferq.engines.batching import moves
from inferq.engines.batching.executor import Executor, Limits, Row
from inferq.engines.batching.fit import check_fit
from inferq.engines.batching.planner import Planner
from inferq.engines.batching.sequence import Purpose, Sequence
from inferq.errors import EngineError, EngineStartError, EngineStepError, InvalidRequest, KvLost
from inferq.messages import FinishReason, Handoff, Request
from inferq.transfer.base import Transfer
from inferq.transfer.memory import MemoryTransfer

logger = logging.getLogger(__name__)

#: Whole steps that may fail in a row before the executor is restarted.
FAILED_STEPS_BEFORE_RESTART = 3


class BatchingEngine(Engine):
    """Batches sequences step by step; an Executor computes the steps.

    All state changes on the event loop that called ``start``, so there are no locks.
    """

    resumes: ClassVar[bool] = True

    def __init__(self, executor: Executor, *, reserved_output_blocks: int) -> None:
        self._executor = executor
        self._reserved = reserved_output_blocks
        self._numbers = itertools.count()
        self._live: dict[str, Sequence] = {}
        self._own_transfer: Transfer | None = MemoryTransfer()
        self._transfer: Transfer = self._own_transfer
        self.transfer_protocols = self._transfer.protocols
        self._work = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._limits: Limits | None = None
        self._planner: Planner
        self._broken: str | None = None
        self._failed_steps = 0

    def use_transfer(self, transfer: Transfer) -> None:
        """Send and fetch KV caches by this; without it they stay in this engine."""
        self._own_transfer, self._transfer = None, transfer
        self.transfer_protocols = transfer.protocols

    async def start(self) -> None:
        """Load the executor and start the loop of steps."""
        if self._own_transfer is not None:
            await self._own_transfer.start()
        self._limits = await self._executor.start()
        self._planner = Planner(self._limits, self._reserved)
        self._loop_task = asyncio.create_task(self._steps(), name="inferq-engine")

    async def stop(self) -> None:
        """End every sequence as cancelled and unload the executor."""
        task, self._loop_task = self._loop_task, None
        if task is None:
            return
        ended = [task, *(s.move for s in self._live.values() if s.move is not None)]
        for request_id in list(self._live):
            self.abort(request_id)
        task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        await self._executor.stop()
        if self._own_transfer is not None:
            await self._own_transfer.stop()

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
        """Length of the prompt, tokenized when it is text.

        Whether its whole answer fits is checked where it is to be computed.
        """
        prompt = self._executor.tokenize(request)
        check_fit(request, prompt, self._started(), whole=False)
        return len(prompt)

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Prefill and decode here."""
        return self._stream(self._enter(request, Purpose.WHOLE))

    def prefill(self, request: Request, produced: Seq[int] = ()) -> AsyncIterator[Chunk]:
        """Compute the prompt and one token, and offer the KV cache to other nodes."""
        return self._stream(self._enter(request, Purpose.PREFILL, produced))

    async def receive(self, handoff: Handoff) -> Received:
        """Fetch the KV cache from the node that offers it."""
        return await moves.receive(handoff, self._transfer)

    def decode(
        self, request: Request, handoff: Handoff, received: Received
    ) -> AsyncIterator[Chunk]:
        """Continue from the received KV cache; without one, compute it again."""
        return self._stream(self._enter(request, Purpose.WHOLE, handoff.token_ids, received.data))

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
        kv: memoryview | None = None,
    ) -> Sequence:
        limits = self._started()
        if self._broken is not None or self._loop_task is None:
            raise EngineError(f"the engine is down: {self._broken or 'it was stopped'}")
        if request.request_id in self._live:
            raise InvalidRequest("request_id", f"{request.request_id!r} is running on this engine")
        prompt = self._executor.tokenize(request)
        check_fit(request, prompt, limits, produced=produced, whole=purpose is Purpose.WHOLE)
        sequence = Sequence(
            next(self._numbers), request, [*prompt, *produced], purpose, len(produced)
        )
        reason = sequence.replay(self._executor.piece, self._executor.is_end)
        if reason is not None:
            sequence.output.put(Chunk(finish_reason=reason), last=True)
            return sequence
        sequence.received = kv
        self._live[request.request_id] = sequence
        self._planner.add(sequence, self._open)
        self._work.set()
        return sequence

    async def _stream(self, sequence: Sequence) -> AsyncIterator[Chunk]:
        try:
            while True:
                chunk = await sequence.output.get()
                if chunk.handoff is not None:
                    # From here on somebody knows of the KV cache, and fetches or frees it.
                    sequence.is_offered = False
                yield chunk
                if chunk.finish_reason is not None or chunk.handoff is not None:
                    return
        finally:
            self._end(sequence, Chunk(finish_reason=FinishReason.CANCELLED.value))
            if sequence.is_offered:
                self._transfer.free([sequence.request.request_id])

    def _open(self, sequence: Sequence) -> None:
        """A sequence has got its room: at the start, or again after a preemption."""
        assert sequence.slot is not None
        prompt = sequence.tokens[: sequence.prompt_tokens]
        self._executor.open_slot(sequence.slot, sequence.request, prompt)
        if sequence.received is not None:
            self._planner.hold(sequence)
            sequence.move = asyncio.create_task(self._move_in(sequence))

    def _preempt(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        self._executor.evict(sequence.slot)

    def _end(self, sequence: Sequence, last: Chunk | BaseException) -> None:
        """Free what a sequence holds and close its channel; a second call does nothing."""
        if self._live.get(sequence.request.request_id) is not sequence:
            return
        del self._live[sequence.request.request_id]
        if sequence.move is not None and sequence.move is not asyncio.current_task():
            sequence.move.cancel()
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
            if not planned:
                # All that live are held: their moves end, and say so.
                self._work.clear()
                await self._work.wait()
                continue
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
            sequence.output.put(chunk, last=False)
            self._planner.hold(sequence)
            sequence.move = asyncio.create_task(self._move_out(sequence, chunk))
        else:
            sequence.output.put(chunk, last=False)

    async def _move_out(self, sequence: Sequence, last: Chunk) -> None:
        try:
            handoff = await moves.send(sequence, last, self._executor, self._transfer)
        except EngineError as exc:
            self._end(sequence, exc)
            return
        sequence.is_offered = True
        self._end(sequence, Chunk(handoff=handoff))

    async def _move_in(self, sequence: Sequence) -> None:
        try:
            await moves.load(sequence, self._executor)
        except KvLost as exc:
            self._end(sequence, exc)
            return
        sequence.move = None
        self._planner.resume(sequence)
        self._work.set()

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
        try:
            await self._executor.stop()
            await self._executor.start()
        except EngineStartError as exc:
            self._broken = str(exc)
            logger.critical("the engine did not come back: %s", exc)
