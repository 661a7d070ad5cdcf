"""The node that is predicted to be done first."""

from __future__ import annotations

from heapq import nsmallest
from operator import mul

from inferq.routing.placement.nodes import Ask
from inferq.routing.placement.policy import Policy
from inferq.routing.placement.pool import Pool
from inferq.routing.placement.shortlist import MOST_CANDIDATES, Candidate, Shortlist

#: So many candidates are those best by the snapshot; the others are any, so that producers with
#: the same snapshot do not all compare the same few nodes.
BEST = 4


class LeastTime(Policy):
    """Prefill: seconds of what is queued and running, and of this prompt, by measured rates.

    Decode: fewest pledged tokens.
    """

    def shortlist(self, pool: Pool, ask: Ask) -> Shortlist:
        """The best by what is known here, and some others."""
        if self.profile.phase == "prefill":
            weights: list[float] | None = pool.s_per_token
            tokens = ask.prompt_tokens
            costs = list(map(mul, [load + tokens for load in pool.loads], pool.s_per_token))
        else:
            weights, tokens, costs = None, 0, pool.loads
        return Shortlist(
            tuple(
                Candidate(pool.nodes[at].name, s := weights[at] if weights else 1.0, s * tokens)
                for at in self._places(costs)
            ),
            load=self.load,
        )

    def _places(self, costs: list[float]) -> list[int]:
        count = len(costs)
        if count <= MOST_CANDIDATES:
            return sorted(range(count), key=costs.__getitem__)
        best = nsmallest(BEST, range(count), key=costs.__getitem__)
        others = self.random.sample(range(count), MOST_CANDIDATES)
        # Drawn without a look at the best, so some may be among them.
        rest = [at for at in others if at not in best][: MOST_CANDIDATES - BEST]
        return best + rest
