"""One node after the other."""

from __future__ import annotations

from bisect import bisect_right

from inferq.routing.placement.nodes import Ask
from inferq.routing.placement.policy import Policy
from inferq.routing.placement.pool import Pool
from inferq.routing.placement.shortlist import MOST_CANDIDATES, Candidate, Shortlist


class RoundRobin(Policy):
    """By name, from a random one on: the first name after the last one proposed first."""

    _last: str | None = None

    def shortlist(self, pool: Pool, ask: Ask) -> Shortlist:
        """The next name first; those behind it stand in when it cannot take the request."""
        del ask
        names = pool.names
        last = self.random.choice(names) if self._last is None else self._last
        first = bisect_right(names, last) % len(names)
        order = names[first : first + MOST_CANDIDATES]
        order += names[: min(first, MOST_CANDIDATES - len(order))]
        self._last = order[0]
        return Shortlist(tuple(Candidate(name) for name in order), among=1, load=self.load)
