"""A context: the key-value memory of many sequences, and the steps that fill it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inferq.engines.llamacpp.batch import BatchBuffer, Row
from inferq.engines.llamacpp.failures import DecodeFailed
from inferq.engines.llamacpp.handles import Closing, Handle
from inferq.engines.llamacpp.library import Library, library
from inferq.engines.llamacpp.model import LlamaModel
from inferq.engines.llamacpp.structs import ContextParams
from inferq.errors import EngineStartError, EngineStepError

if TYPE_CHECKING:
    from ctypes import _Pointer

    FloatPointer = _Pointer[ctypes.c_float]


class LlamaContext(Closing):
    """Key-value memory of ``n_ctx`` cells, one per token, that all sequences share.

    Sequences are numbered 0 to ``n_seq_max - 1``; a sequence exists when it holds tokens.
    Methods may be called from any thread; they run one at a time. After ``close`` they raise
    ``RuntimeError``.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        n_ctx: int,
        n_seq_max: int,
        n_batch: int,
        n_ubatch: int,
        n_threads: int,
    ) -> None:
        """Allocate the memory.

        ``n_ctx`` is rounded up by llama.cpp; the attribute has the real number. ``n_batch``
        bounds the tokens of a step, ``n_ubatch`` those computed at once inside of it.
        ``n_threads`` is the number of threads that compute. Raises ``EngineStartError`` when
        llama.cpp refuses, for lack of memory or a value out of its range.
        """
        for name, value in (
            ("n_ctx", n_ctx),
            ("n_seq_max", n_seq_max),
            ("n_batch", n_batch),
            ("n_ubatch", n_ubatch),
            ("n_threads", n_threads),
        ):
            if value < 1:
                raise EngineStartError(f"{name} must be at least 1, not {value}")
        weights = model.handle()
        self._library = library()
        call, log = self._library.call, self._library.log
        params: ContextParams = call.llama_context_default_params()
        params.n_ctx, params.n_seq_max = n_ctx, n_seq_max
        params.n_batch, params.n_ubatch = n_batch, min(n_ubatch, n_batch)
        params.n_outputs_max = min(n_seq_max, n_batch)
        params.n_threads = params.n_threads_batch = n_threads
        params.kv_unified = True
        log.clear()
        pointer = call.llama_init_from_model(weights.pointer("model"), params)
        if not pointer:
            raise EngineStartError(log.explain("llama.cpp cannot create a context"))
        self._handle = Handle(pointer, call.llama_free, weights)
        _check_sizes(self._library, self._handle, params)
        self.n_ctx: int = call.llama_n_ctx(pointer)
        """Cells of the memory, one per token of any sequence."""
        self.n_seq_max = n_seq_max
        """Number of sequences."""
        self.n_batch: int = min(n_batch, call.llama_n_batch(pointer))
        """Most tokens in a step."""
        self._memory: int = call.llama_get_memory(pointer)
        self._buffer = BatchBuffer(self.n_batch)
        self._indexes: frozenset[int] = frozenset()

    @contextmanager
    def using(self) -> Iterator[int]:
        """Hold the context and yield its pointer. Raises ``RuntimeError`` when closed."""
        with self._handle.lock:
            yield self._handle.pointer("context")

    def decode(self, rows: Sequence[Row]) -> list[int]:
        """Compute one step; return for each row the index of its logits, or -1.

        A row replaces what its sequence holds at its position and after: a row that is given
        again has the same effect. The indexes are valid until the next step.

        Raises ``DecodeFailed`` when llama.cpp did not compute the step; what the rows'
        sequences hold from the rows' positions on is then undefined, and giving the rows
        again repairs it. Raises ``EngineStepError`` when a row leaves a gap behind what its
        sequence holds, and ``ValueError`` when the rows are malformed: none at all, one
        without tokens, too many tokens, an unknown sequence or one with two rows.
        """
        with self.using() as pointer:
            self._check_sequences([row.seq_id for row in rows])
            batch, indexes = self._buffer.fill(rows)
            for row in rows:
                self._roll_back(row.seq_id, row.position)
            self._indexes = frozenset()
            self._library.log.clear()
            status: int = self._library.call.llama_decode(pointer, batch)
            if status != 0:
                raise DecodeFailed(status, self._library.log.text())
            self._indexes = frozenset(indexes)
            return indexes

    def _check_sequences(self, ids: Sequence[int]) -> None:
        for seq_id in ids:
            if not 0 <= seq_id < self.n_seq_max:
                raise ValueError(f"sequence {seq_id} is not one of the {self.n_seq_max}")
        if len(set(ids)) != len(ids):
            raise ValueError("a sequence has two rows in one step")

    def _roll_back(self, seq_id: int, position: int) -> None:
        call = self._library.call
        held: int = call.llama_memory_seq_pos_max(self._memory, seq_id) + 1
        if not 0 <= position <= held:
            raise EngineStepError(
                f"sequence {seq_id} holds {held} tokens: a row cannot begin at {position}"
            )
        if position < held and not call.llama_memory_seq_rm(self._memory, seq_id, position, -1):
            raise EngineStepError(f"the model cannot take back tokens of sequence {seq_id}")

    def held(self, seq_id: int) -> int:
        """Return how many positions the sequence holds; 0 when it does not exist."""
        with self.using():
            self._check_sequences((seq_id,))
            last: int = self._library.call.llama_memory_seq_pos_max(self._memory, seq_id)
            return last + 1

    def forget(self, seq_id: int) -> None:
        """Free the cells of the sequence; does nothing when it holds none."""
        with self.using():
            self._check_sequences((seq_id,))
            self._library.call.llama_memory_seq_rm(self._memory, seq_id, -1, -1)

    def state_size(self, seq_id: int) -> int:
        """Return the size of what ``state_get`` would write, in bytes."""
        with self.using() as pointer:
            self._check_sequences((seq_id,))
            size: int = self._library.call.llama_state_seq_get_size(pointer, seq_id)
            return size

    def state_get(self, seq_id: int, memory: memoryview) -> None:
        """Write what the sequence holds, for ``state_set`` of a context of the same model.

        ``memory`` has ``state_size`` bytes. Raises ``EngineStepError`` when llama.cpp fails.
        """
        call, size = self._library.call, len(memory)
        with self.using() as pointer:
            self._check_sequences((seq_id,))
            target = (ctypes.c_char * size).from_buffer(memory)
            if call.llama_state_seq_get_data(pointer, target, size, seq_id) != size:
                raise EngineStepError(f"llama.cpp cannot export sequence {seq_id}")

    def state_set(self, seq_id: int, memory: memoryview) -> None:
        """Replace what the sequence holds by what ``state_get`` has written.

        ``memory`` must be writable, though it is only read. The logits are not part of it:
        decode at least one token before sampling. Raises ``EngineStepError`` when the data
        comes from another model or does not fit into the free cells; the sequence is then
        empty. Not all damage is noticed: what may be damaged needs a checksum.
        """
        call, log, size = self._library.call, self._library.log, len(memory)
        with self.using() as pointer:
            self._check_sequences((seq_id,))
            log.clear()
            source = (ctypes.c_char * size).from_buffer(memory)
            read: int = call.llama_state_seq_set_data(pointer, source, size, seq_id)
            if read != size or size == 0:
                call.llama_memory_seq_rm(self._memory, seq_id, -1, -1)
                raise EngineStepError(log.explain(f"llama.cpp refused the state of {seq_id}"))

    def logits_ptr(self, index: int) -> FloatPointer:
        """Return the logits at an index of the last step: ``vocab_size`` floats.

        They belong to the context and are valid until its next step. Raises ``ValueError``
        when the last step made no logits at this index.
        """
        with self.using() as pointer:
            if index < 0 or index not in self._indexes:
                raise ValueError(f"the last step made no logits at index {index}")
            logits: FloatPointer = self._library.call.llama_get_logits_ith(pointer, index)
            return logits

    def close(self) -> None:
        """Free the memory, after a running step; does nothing the second time."""
        self._handle.free()


def _check_sizes(library: Library, handle: Handle, params: ContextParams) -> None:
    """Check that llama.cpp understood the parameters: a wrong layout would show here."""
    call, pointer = library.call, handle.pointer("context")
    n_ctx = call.llama_n_ctx(pointer)
    understood = (
        n_ctx >= params.n_ctx
        and call.llama_n_ctx_seq(pointer) == n_ctx  # only in a memory that all share
        and call.llama_n_seq_max(pointer) == params.n_seq_max
        and call.llama_n_threads(pointer) == params.n_threads
    )
    if not understood:
        handle.free()
        raise EngineStartError("this build of llama.cpp reads context parameters differently")
