"""Computes the steps of a batching engine with llama.cpp."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from inferq.engines.batching import Limits, Row
from inferq.engines.llamacpp.batch import Row as LlamaRow
from inferq.engines.llamacpp.context import LlamaContext
from inferq.engines.llamacpp.files import check_gguf, find_model
from inferq.engines.llamacpp.model import LlamaModel
from inferq.engines.llamacpp.sampling import Sampler
from inferq.errors import EngineError, EngineStepError, InvalidRequest
from inferq.messages import Request
from inferq.settings import LlamaCppSettings

T = TypeVar("T")

#: Tokens of one step, and of one pass over the weights within it.
TOKENS_PER_BATCH = 512
#: Without top_k, top_p sorts the whole vocabulary for each token; what lies beyond this many
#: of the likeliest tokens has no probability that matters to it.
TOP_P_CANDIDATES = 1000


class LlamaCppExecutor:
    """One model and one context; steps run in a thread of their own.

    llama.cpp's memory is touched by that thread alone while a step may run: what happens to
    slots in between is written down and done at the start of the next step.
    """

    def __init__(self, settings: LlamaCppSettings) -> None:
        self._settings = settings
        self._model: LlamaModel | None = None
        self._context: LlamaContext | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._requests: dict[int, Request] = {}
        self._before_step: list[Callable[[LlamaContext], None]] = []

    async def start(self) -> Limits:
        """Load the model."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inferq-llamacpp")
        try:
            limits = await self._in_thread(self._load)
        except BaseException:
            await self.stop()
            raise
        return limits

    async def stop(self) -> None:
        """Wait for a running step, then free everything."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        await asyncio.to_thread(thread.shutdown)
        if self._context is not None:
            self._context.close()
        if self._model is not None:
            self._model.close()
        self._context = self._model = None
        self._requests.clear()
        self._before_step.clear()

    def tokenize(self, request: Request) -> Sequence[int]:
        """The prompt's tokens; a conversation goes through the model's own chat template."""
        if request.prompt_token_ids is not None:
            return request.prompt_token_ids
        model = self._loaded()
        if request.prompt is not None:
            return model.tokenize(request.prompt, add_special=True, parse_special=False)
        turns = [(message.role, message.content) for message in request.messages or ()]
        try:
            text = model.chat_prompt(turns)
        except ValueError as exc:
            raise InvalidRequest("messages", str(exc)) from None
        return model.tokenize(text, add_special=False, parse_special=True)

    def piece(self, token: int) -> bytes:
        """The token's bytes; none for control tokens."""
        return self._loaded().piece(token)

    def is_end(self, token: int) -> bool:
        """Whether the model ends a generation with it."""
        return self._loaded().is_end(token)

    def open_slot(self, slot: int, request: Request, prompt: Sequence[int]) -> None:
        """Remember how to sample for this slot."""
        del prompt
        self._requests[slot] = request

    def close_slot(self, slot: int) -> None:
        """Free the slot's part of the KV cache before the next step."""
        self._requests.pop(slot, None)
        self.evict(slot)

    def evict(self, slot: int) -> None:
        """Free the slot's part of the KV cache before the next step."""
        self._before_step.append(lambda context: context.forget(slot))

    async def run(self, rows: Sequence[Row]) -> list[int | None]:
        """Compute and sample in the engine's thread; the event loop goes on meanwhile."""
        requests = [self._requests[row.slot] for row in rows]
        before, self._before_step = self._before_step, []
        return await self._in_thread(lambda: self._step(rows, requests, before))

    async def kv_bytes(self, slot: int, tokens: int) -> int:
        """What llama.cpp needs for the slot's part of the KV cache."""
        del tokens
        return await self._in_thread(lambda: self._opened().state_size(slot))

    async def export_kv(self, slot: int, tokens: int, memory: memoryview) -> None:
        """The slot's part of the KV cache, as llama.cpp writes it."""
        del tokens
        await self._in_thread(lambda: self._opened().state_get(slot, memory))

    async def import_kv(self, slot: int, tokens: int, memory: memoryview) -> None:
        """Fill the slot, between two steps."""
        # What the slot held before is forgotten first, not afterwards.
        before, self._before_step = self._before_step, []
        await self._in_thread(lambda: self._import(slot, tokens, memory, before))

    def _load(self) -> Limits:
        s = self._settings
        path = find_model(s.model)
        check_gguf(path)
        self._model = model = LlamaModel(path, n_gpu_layers=s.gpu_layers)
        self._context = context = LlamaContext(
            model,
            n_ctx=s.context_tokens,
            n_seq_max=s.max_slots,
            n_batch=max(TOKENS_PER_BATCH, s.max_slots),
            n_ubatch=TOKENS_PER_BATCH,
            n_threads=s.threads or len(os.sched_getaffinity(0)),
        )
        return Limits(
            block_size=s.block_size,
            total_blocks=context.n_ctx // s.block_size,
            max_slots=s.max_slots,
            tokens_per_batch=context.n_batch,
            max_model_len=min(model.n_ctx_train, context.n_ctx),
            vocab_size=model.vocab_size,
        )

    def _import(
        self,
        slot: int,
        tokens: int,
        memory: memoryview,
        before: Sequence[Callable[[LlamaContext], None]],
    ) -> None:
        context = self._opened()
        for change in before:
            change(context)
        context.state_set(slot, memory)
        held = context.held(slot)
        if held != tokens:
            context.forget(slot)
            raise EngineStepError(f"the KV cache holds {held} tokens, not {tokens}")

    def _step(
        self,
        rows: Sequence[Row],
        requests: Sequence[Request],
        before: Sequence[Callable[[LlamaContext], None]],
    ) -> list[int | None]:
        context = self._opened()
        for change in before:
            change(context)
        indexes = context.decode(
            [LlamaRow(row.slot, row.tokens, row.position, row.samples) for row in rows]
        )
        return [
            self._sample(context, index, request, row) if row.samples else None
            for row, request, index in zip(rows, requests, indexes, strict=True)
        ]

    def _sample(self, context: LlamaContext, index: int, request: Request, row: Row) -> int:
        """Draw a token. The seed of each draw follows from the request's seed and the token's
        position, so a sequence goes on alike after a preemption, a handoff or a retry.
        """
        model = self._loaded()
        banned = (*model.end_tokens, *request.stop_token_ids) if row.ban_end else ()
        position = row.position + len(row.tokens)
        with Sampler(
            model,
            temperature=request.temperature,
            top_k=_candidates(request),
            top_p=request.top_p,
            seed=(request.seed or 0) * 0x9E3779B1 + position * 0x85EBCA77,
        ) as sampler:
            return sampler.sample(context, index, [t for t in banned if t < model.vocab_size])

    async def _in_thread(self, function: Callable[[], T]) -> T:
        if self._thread is None:
            raise EngineError("the engine has been stopped")
        job = asyncio.get_running_loop().run_in_executor(self._thread, function)
        job.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Cancelled or not, it is done: what it changes before a step must not get lost.
        return await asyncio.shield(job)

    def _opened(self) -> LlamaContext:
        assert self._context is not None
        return self._context

    def _loaded(self) -> LlamaModel:
        if self._model is None:
            raise EngineError("the engine has been stopped")
        return self._model


def _candidates(request: Request) -> int:
    if request.top_k == 0 and request.top_p < 1:
        return TOP_P_CANDIDATES
    return request.top_k
