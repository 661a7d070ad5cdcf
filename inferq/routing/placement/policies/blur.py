"""The reference's rule: any of the nodes that are about as little loaded as the least loaded."""

from __future__ import annotations

from random import Random

from inferq.routing.placement.nodes import Ask
from inferq.routing.placement.policy import Policy
from inferq.routing.placement.pool import Pool
from inferq.routing.placement.profiles import Profile
from inferq.routing.placement.shortlist import MOST_CANDIDATES, Candidate, Shortlist

MOST_DECODE_STEP = 10


def prefill_step(prompt_tokens: int) -> float:
    """Loads that differ by less count as equal, tokens."""
    share = prompt_tokens / (2 if prompt_tokens < 1000 else 10)
    return max(100, min(500, share))


def decode_step(nodes: int) -> int:
    """The same for decode, requests."""
    return min(nodes, MOST_DECODE_STEP)


class Blur(Policy):
    """Load: prompt tokens queued and running for prefill, requests for decode."""

    def __init__(self, profile: Profile, random: Random) -> None:
        super().__init__(profile, random)
        self._prefill = profile.phase == "prefill"
        if not self._prefill:
            self.load = "decode_requests"

    def shortlist(self, pool: Pool, ask: Ask) -> Shortlist:
        """Some of the nodes with a load below least + step, in random order."""
        step = prefill_step(ask.prompt_tokens) if self._prefill else decode_step(len(pool))
        bound = min(pool.loads) + step
        close = [at for at, load in enumerate(pool.loads) if load < bound]
        chosen = self.random.sample(close, min(len(close), MOST_CANDIDATES))
        candidates = tuple(Candidate(pool.nodes[at].name) for at in chosen)
        return Shortlist(candidates, slack=step, load=self.load)
