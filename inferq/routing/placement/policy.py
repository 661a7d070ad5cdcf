"""The contract of a policy, and the policy that is put together from filters and scorers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from itertools import islice
from random import Random
from typing import NamedTuple

from inferq.routing.placement.nodes import Ask, LoadName, NodeInfo
from inferq.routing.placement.pool import Pool
from inferq.routing.placement.profiles import Profile
from inferq.routing.placement.shortlist import MOST_CANDIDATES, Candidate, Shortlist


class Policy(ABC):
    """Proposes nodes for requests. One object for each process and phase.

    It is called for every request, in the thread that sends it: it must not wait for anything.
    ``random`` is its only source of chance. ``load`` may be set to the load that counts.
    """

    def __init__(self, profile: Profile, random: Random) -> None:
        self.profile = profile
        self.random = random
        self.load: LoadName = profile.tokens

    @abstractmethod
    def shortlist(self, pool: Pool, ask: Ask) -> Shortlist:
        """The candidates for a request, best first, at most ``MOST_CANDIDATES``.

        ``pool`` holds the nodes that are ready, live and large enough; it is never empty. What
        raises here, or returns too many names, sends the request to the shared queue.
        """


#: Empty: the node may get the request; else why not, in a few words. Pure.
Filter = Callable[[NodeInfo, Ask], str]
#: How well the request suits the node, from 0 to 1 (best). Pure.
Scorer = Callable[[NodeInfo, Ask], float]


class Weighted(NamedTuple):
    """A scorer, and how much it counts beside the others."""

    scorer: Scorer
    weight: float = 1.0


#: Names of nodes that are worth a look for this request, most promising first.
Hints = Callable[[Ask], Iterable[str]]

#: Of more nodes than this a request looks at so many, at random, and at those hinted at.
MOST_SCORED = 128
MOST_HINTS = 32


class Scored(Policy):
    """Filter, score, pick: the nodes whose score, less what their load costs, is highest.

    ``tokens_per_point``: so many tokens of load (of requests, where those count) outweigh the
    whole score. The final choice adds the loads of its moment to the scores of the snapshot.
    ``hints``: for scorers that favour a few nodes of very many, as those do that know what is
    cached where.
    """

    def __init__(
        self,
        profile: Profile,
        random: Random,
        *,
        scorers: Sequence[Weighted],
        tokens_per_point: float,
        filters: Sequence[Filter] = (),
        hints: Hints | None = None,
    ) -> None:
        super().__init__(profile, random)
        self._scorers = tuple(scorers)
        self._total = sum(weighted.weight for weighted in scorers)
        if not scorers or self._total <= 0 or tokens_per_point <= 0:
            raise ValueError("weights of scorers and tokens_per_point must be above 0")
        self._cost = 1 / tokens_per_point
        self._filters = tuple(filters)
        self._hints = hints

    def shortlist(self, pool: Pool, ask: Ask) -> Shortlist:
        """The best of the nodes that are looked at; of all, when the filters leave none of them."""
        left = self._filtered(pool, ask, self._looked_at(pool, ask))
        left = left or self._filtered(pool, ask, range(len(pool)))
        if not left:
            return Shortlist(load=self.load, reason=self._explain(pool, ask))
        scores = {at: self._score(pool.nodes[at], ask) for at in left}
        best = nlargest(
            MOST_CANDIDATES, left, key=lambda at: scores[at] - self._cost * pool.loads[at]
        )
        candidates = [Candidate(pool.nodes[at].name, self._cost, 1 - scores[at]) for at in best]
        return Shortlist(tuple(candidates), load=self.load)

    def _looked_at(self, pool: Pool, ask: Ask) -> Iterable[int]:
        count = len(pool)
        if count <= MOST_SCORED:
            return range(count)
        names = islice(self._hints(ask), MOST_HINTS) if self._hints else ()
        hinted = {pool.places[name] for name in names if name in pool.places}
        # The order of the pool is random, so any stretch of it is a random sample.
        first = self.random.randrange(count)
        return hinted.union(at % count for at in range(first, first + MOST_SCORED))

    def _filtered(self, pool: Pool, ask: Ask, places: Iterable[int]) -> list[int]:
        if not self._filters:
            return list(places)
        return [at for at in places if not self._refusal(pool.nodes[at], ask)]

    def _refusal(self, node: NodeInfo, ask: Ask) -> str:
        return next((why for rule in self._filters if (why := rule(node, ask))), "")

    def _explain(self, pool: Pool, ask: Ask) -> str:
        reasons = sorted({self._refusal(node, ask) for node in pool.nodes})
        return f"no {self.profile.phase} node may take it: {'; '.join(reasons[:3])}"

    def _score(self, node: NodeInfo, ask: Ask) -> float:
        total = 0.0
        for scorer, weight in self._scorers:
            score = scorer(node, ask)
            if not 0 <= score <= 1:
                raise ValueError(f"{scorer} says {score} of {node.name}; allowed is 0 to 1")
            total += weight * score
        return total / self._total
