"""Where a request is at one moment."""

from __future__ import annotations

from typing import NamedTuple


class Status(NamedTuple):
    """Where a request is: ``queued``, ``running``, ``cancelled``, ``ended`` or ``unknown``.

    ``phase``: prefill or decode; a request that is prefilled and decoded by one node is in
    prefill. ``node``: the one that runs it. ``reason``: why a queued one cannot start now; empty
    when it only waits for its turn.
    """

    state: str
    phase: str = ""
    node: str = ""
    reason: str = ""
