"""The nodes that a policy proposes for a request, and the rule that chooses among them.

The script that enqueues the request applies the rule, with the loads of that very moment.
``choose`` is the same rule in Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from inferq.routing.placement.nodes import LoadName

#: A shortlist has at most this many names.
MOST_CANDIDATES = 8


class Candidate(NamedTuple):
    """A node that is proposed; choosing it costs ``bias + weight * load``."""

    name: str
    weight: float = 1.0
    bias: float = 0.0


class Shortlist(NamedTuple):
    """The nodes proposed for a request, best first.

    ``slack``: costs less than this above the least count as equal to it. ``among``: how many are
    compared, of those that can take the request. ``load``: which load of the nodes counts.
    ``reason``: why no node can take the request now, as a sentence; empty when some can.

    Without candidates the request waits in the shared queue.
    """

    candidates: tuple[Candidate, ...] = ()
    slack: float = 0.0
    among: int = MOST_CANDIDATES
    load: LoadName = "prefill_tokens"
    reason: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes, in order."""
        return tuple(candidate.name for candidate in self.candidates)


def choose(
    shortlist: Shortlist, loads: Mapping[str, float], able: Callable[[str], bool]
) -> str | None:
    """The node that gets the request; None: none can take it, so it waits in the shared queue.

    ``loads``: of each candidate, now; ``able``: whether a node can take the request now.
    """
    compared = [c for c in shortlist.candidates if able(c.name)][: shortlist.among]
    costs = [c.bias + c.weight * loads[c.name] for c in compared]
    least = min(costs, default=0.0)
    for candidate, cost in zip(compared, costs, strict=True):
        if cost == least or cost < least + shortlist.slack:
            return candidate.name
    return None


def checked(shortlist: Shortlist) -> Shortlist:
    """The shortlist, if the script can work with it.

    Raises:
        ValueError: it has too many names, one twice, or a number that is none.
    """
    names = shortlist.names
    if len(names) > MOST_CANDIDATES:
        raise ValueError(f"{len(names)} candidates; at most {MOST_CANDIDATES} are allowed")
    if len(set(names)) < len(names):
        raise ValueError(f"a candidate is named twice: {', '.join(names)}")
    if shortlist.among < 1 or not 0 <= shortlist.slack < math.inf:
        raise ValueError("among must be at least 1, slack finite and not negative")
    for _, weight, bias in shortlist.candidates:
        if not (0 <= weight < math.inf and math.isfinite(bias)):
            raise ValueError("weights must be finite and not negative, biases finite")
    return shortlist
