"""The stealing rule: how many waiting requests an idle node may take from another one."""

from __future__ import annotations

from typing import NamedTuple


class Victim(NamedTuple):
    """A node with waiting requests, as a thief sees it.

    ``load``: requests that wait in its queue or that it has claimed. ``waited_s``: how long the
    first one has waited; without end when the node is gone.
    """

    load: int
    waited_s: float


def surplus(victim: Victim, own_load: int, min_load: float, steal_after_s: float) -> int:
    """How many a thief with ``own_load`` claims may take: half of what the victim has too many.

    Whatever the loads, one that has waited for ``steal_after_s`` may go. The script
    ``cluster/scripts/lib/stealing.lua`` says the same.
    """
    if victim.load > min_load and victim.load > own_load + 1:
        return max(1, int((victim.load - max(min_load, own_load)) // 2))
    return 1 if victim.waited_s >= steal_after_s else 0
