"""Late binding: nodes take from the shared queue when they can start."""

from __future__ import annotations

from inferq.routing.placement.nodes import Ask
from inferq.routing.placement.policy import Policy
from inferq.routing.placement.pool import Pool
from inferq.routing.placement.shortlist import Shortlist


class Pull(Policy):
    """Proposes nobody."""

    def shortlist(self, pool: Pool, ask: Ask) -> Shortlist:
        """Empty, without a reason: this is as it should be."""
        del pool, ask
        return Shortlist(load=self.load)
