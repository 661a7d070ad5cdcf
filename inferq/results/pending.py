"""What a writer has collected for one stream."""

from __future__ import annotations

from typing import Any

from inferq.cluster.topic import Hop, Settle

#: A key, its value, and how long it lives, seconds.
StoredResult = tuple[str, bytes, int]


class Pending:
    """What is to be written to one stream."""

    __slots__ = ("hops", "outputs", "results", "retry_at", "settles")

    def __init__(self) -> None:
        self.outputs: list[tuple[Any, ...]] = []
        self.settles: list[Settle] = []
        self.results: list[StoredResult] = []
        self.hops: list[Hop] = []
        self.retry_at = 0.0

    def cut(self, most: int) -> Pending:
        """Take away the first outputs; claims end, or go on, with the last of them."""
        piece = Pending()
        piece.outputs = self.outputs[:most]
        self.outputs = self.outputs[most:]
        if not self.outputs:
            piece.settles, self.settles = self.settles, []
            piece.results, self.results = self.results, []
            piece.hops, self.hops = self.hops, []
            # What was done beside a claim that goes on is noted when it has gone on.
            if piece.hops:
                self.settles = [settle for settle in piece.settles if settle.held]
                piece.settles = [settle for settle in piece.settles if not settle.held]
        return piece

    def prepend(self, piece: Pending) -> None:
        """Return a piece that could not be written."""
        self.outputs = piece.outputs + self.outputs
        self.settles = piece.settles + self.settles
        self.results = piece.results + self.results
        self.hops = piece.hops + self.hops
        self.retry_at = max(self.retry_at, piece.retry_at)

    def emitted(self) -> None:
        """All but the hops has been written."""
        self.outputs, self.settles, self.results = [], [], []

    @property
    def has_outputs(self) -> bool:
        """Whether something is to be written to the stream, or to be settled."""
        return bool(self.outputs or self.settles or self.results)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return not (self.has_outputs or self.hops)
