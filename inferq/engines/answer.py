"""Turns sampled tokens into text, and says when an answer ends."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from inferq.messages import FinishReason, Request


class Piece(NamedTuple):
    """Text that is ready to show, and why the answer ends here if it does."""

    text: str
    finish_reason: FinishReason | None


class Answer:
    """The text of one answer, built token by token.

    Two things hold text back: bytes that do not yet make a character, and text that may turn
    out to be the start of a stop string. A stop string and what follows it are never shown.
    """

    def __init__(self, request: Request, *, produced: int = 0) -> None:
        self._max_tokens = request.max_tokens
        self._min_tokens = request.min_tokens
        self._stop = request.stop
        self._stop_ids = frozenset(request.stop_token_ids)
        self._ignore_eos = request.ignore_eos
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.produced = produced

    @property
    def may_end(self) -> bool:
        """Whether the next token may end the answer (``min_tokens`` are reached with it)."""
        return self.produced + 1 >= self._min_tokens

    def push(self, token: int, piece: bytes, *, is_end: bool) -> Piece:
        """Take the next token, its bytes, and whether the model means it as an end."""
        ends = self.may_end and (token in self._stop_ids or (is_end and not self._ignore_eos))
        self.produced += 1
        if ends:
            return Piece(self._flush(), FinishReason.STOP)
        self._held += self._decoder.decode(piece)
        if self._stop and self.produced >= self._min_tokens:
            cut = self._first_stop()
            if cut is not None:
                text, self._held = self._held[:cut], ""
                return Piece(text, FinishReason.STOP)
        if self.produced >= self._max_tokens:
            return Piece(self._flush(), FinishReason.LENGTH)
        return Piece(self._release(), None)

    def _first_stop(self) -> int | None:
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        return min(found) if found else None

    def _flush(self) -> str:
        text, self._held = self._held + self._decoder.decode(b"", final=True), ""
        return text

    def _release(self) -> str:
        keep = self._longest_start_of_a_stop()
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _longest_start_of_a_stop(self) -> int:
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
