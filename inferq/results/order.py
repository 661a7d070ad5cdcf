"""Brings the outputs of one attempt into order, and fits them to what an older one delivered."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence

from inferq.messages import Output

#: Outputs that wait for an earlier one; more mean that it is lost.
MOST_WAITING = 1024


class OutputsLost(Exception):
    """An output is missing, and too many after it have come."""


class Match:
    """Compares a new attempt with the answer that was delivered so far.

    Both attempts have the same seed, but not the same chunks: one may say in one output what the
    other one said in three. So tokens and text are compared by their positions in the answer.
    """

    def __init__(self, delivered: Sequence[Output]) -> None:
        self._ids = [token for output in delivered for token in output.token_ids]
        self._text = "".join(output.text for output in delivered)
        self._pieces: list[Output] = []
        self._id_at = 0
        self._text_at = 0
        #: There is nothing left to compare.
        self.done = not (self._ids or self._text)

    def take(self, piece: Output) -> Output | None:
        """What of the new attempt's next output the caller does not have; None: nothing."""
        self._pieces.append(piece)
        agrees = self._agrees(piece)
        self._id_at += len(piece.token_ids)
        self._text_at += len(piece.text)
        behind = self._id_at < len(self._ids) or self._text_at < len(self._text)
        if not agrees or (piece.finished and behind):
            return self._restart(piece)
        return self._rest(piece, behind=behind)

    def _agrees(self, piece: Output) -> bool:
        ids = self._ids[self._id_at : self._id_at + len(piece.token_ids)]
        text = self._text[self._text_at : self._text_at + len(piece.text)]
        return list(piece.token_ids[: len(ids)]) == ids and piece.text.startswith(text)

    def _restart(self, piece: Output) -> Output:
        self.done = True
        return piece._replace(
            index=0,
            token_ids=tuple(token for output in self._pieces for token in output.token_ids),
            text="".join(output.text for output in self._pieces),
            restarted=True,
        )

    def _rest(self, piece: Output, *, behind: bool) -> Output | None:
        index = len(self._ids)
        ids = piece.token_ids[max(0, len(piece.token_ids) - max(0, self._id_at - index)) :]
        text = piece.text[max(0, len(piece.text) - max(0, self._text_at - len(self._text))) :]
        self.done = not behind
        if behind:
            self._ids += ids
            self._text += text
        if not ids and not text and not piece.finished:
            return None
        return piece._replace(index=index, token_ids=ids, text=text)


class Order:
    """Which outputs of an attempt can be delivered now.

    ``next_index``: of the next output. One that comes too early waits; one that came before (a
    node repeats what may have been lost) is skipped. ``text_from`` tells the text that was
    delivered from an index on, None when no output began there.
    """

    def __init__(
        self, next_index: int, text_from: Callable[[int], str | None], match: Match | None = None
    ) -> None:
        self.next_index = next_index
        self._text_from = text_from
        self._match = match
        self._waiting: list[Output] = []

    @property
    def settled(self) -> bool:
        """Nothing waits, and nothing is left to compare: outputs may pass as they come."""
        return not self._waiting and (self._match is None or self._match.done)

    def take(self, output: Output) -> Iterator[Output]:
        """Take one output; yields what is to be delivered before the next is asked for.

        Raises:
            OutputsLost: too many wait already.
        """
        if output.index > self.next_index:
            self._wait(output)
            return
        yield from self._pass(output)
        while self._waiting and self._waiting[0].index <= self.next_index:
            yield from self._pass(self._waiting.pop(0))

    def _wait(self, output: Output) -> None:
        if output in self._waiting:
            return
        if len(self._waiting) >= MOST_WAITING:
            raise OutputsLost
        insort(self._waiting, output, key=lambda waiting: waiting.index)

    def _pass(self, output: Output) -> Iterator[Output]:
        piece = self._unseen(output)
        if piece is None:
            return
        self.next_index = piece.index + len(piece.token_ids)
        if self._match is not None and not self._match.done:
            piece = self._match.take(piece)
        if piece is not None:
            yield piece

    def _unseen(self, output: Output) -> Output | None:
        """The part behind ``next_index``. An end is never skipped."""
        seen = self.next_index - output.index
        if seen <= 0:
            return output
        if seen >= len(output.token_ids) and not output.finished:
            return None
        # A node that repeats may have put what it repeats and what is new into one output.
        known = self._text_from(output.index)
        text = output.text.removeprefix(known) if known is not None else ""
        return output._replace(index=self.next_index, token_ids=output.token_ids[seen:], text=text)
