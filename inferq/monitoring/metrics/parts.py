"""What there is to tell of, in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from inferq.worker.node import Node
    from inferq.worker.seat import Seat


class Parts(NamedTuple):
    """What a worker consists of; None: not yet, or not any more."""

    node: Node | None = None
    seat: Seat | None = None
