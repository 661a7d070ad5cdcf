"""The tokens of one step, of all sequences at once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int8, c_int32, c_void_p
from typing import NamedTuple

from inferq.engines.llamacpp.structs import Batch


class Row(NamedTuple):
    """What one sequence adds in a step.

    ``tokens`` take the positions ``position``, ``position + 1``, ... of sequence ``seq_id``;
    positions count from 0. ``wants_logits`` asks for the logits after the last of them.
    """

    seq_id: int
    tokens: Sequence[int]
    position: int
    wants_logits: bool


class BatchBuffer:
    """The arrays of a ``llama_batch`` of up to ``capacity`` tokens, allocated once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tokens = (c_int32 * capacity)()
        self._positions = (c_int32 * capacity)()
        self._sequences = (c_int32 * capacity)()
        self._logits = (c_int8 * capacity)()
        # Every token belongs to exactly one sequence: the counts stay 1, and the i-th pointer
        # stays at the i-th item of `_sequences`.
        self._ones = (c_int32 * capacity)(*([1] * capacity))
        first, step = ctypes.addressof(self._sequences), ctypes.sizeof(c_int32)
        self._pointers = (c_void_p * capacity)(*range(first, first + step * capacity, step))
        self._batch = Batch(
            token=ctypes.addressof(self._tokens),
            pos=ctypes.addressof(self._positions),
            n_seq_id=ctypes.addressof(self._ones),
            seq_id=ctypes.addressof(self._pointers),
            logits=self._logits,
        )

    def fill(self, rows: Sequence[Row]) -> tuple[Batch, list[int]]:
        """Put ``rows`` into the arrays.

        Returns the batch, valid until the next call, and for each row the index of its logits
        or -1. Raises ``ValueError`` when there are no rows, a row has no tokens, or the rows
        have more than ``capacity`` tokens together.
        """
        total = sum([len(row.tokens) for row in rows])
        if not 0 < total <= self.capacity:
            raise ValueError(f"a step takes 1 to {self.capacity} tokens, not {total}")
        ctypes.memset(self._logits, 0, total)
        indexes = []
        at = 0
        for row in rows:
            count = len(row.tokens)
            if count == 0:
                raise ValueError(f"the row of sequence {row.seq_id} has no tokens")
            end = at + count
            self._tokens[at:end] = list(row.tokens)
            self._positions[at:end] = list(range(row.position, row.position + count))
            self._sequences[at:end] = [row.seq_id] * count
            self._logits[end - 1] = row.wants_logits
            indexes.append(end - 1 if row.wants_logits else -1)
            at = end
        self._batch.n_tokens = total
        return self._batch, indexes
