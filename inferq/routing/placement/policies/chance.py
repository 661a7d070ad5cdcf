"""Chance, and chance with a second look."""

from __future__ import annotations

from inferq.routing.placement.nodes import Ask
from inferq.routing.placement.policy import Policy
from inferq.routing.placement.pool import Pool
from inferq.routing.placement.shortlist import MOST_CANDIDATES, Candidate, Shortlist


class RandomNode(Policy):
    """Any node."""

    among = 1

    def shortlist(self, pool: Pool, ask: Ask) -> Shortlist:
        """Nodes in random order; the later ones stand in for those that cannot take it."""
        del ask
        nodes = self.random.sample(pool.nodes, min(len(pool), MOST_CANDIDATES))
        candidates = tuple(Candidate(node.name) for node in nodes)
        return Shortlist(candidates, among=self.among, load=self.load)


class PowerOfTwo(RandomNode):
    """The less loaded of two nodes, by tokens."""

    among = 2
