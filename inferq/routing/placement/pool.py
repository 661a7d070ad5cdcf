"""The nodes among which a policy chooses, with their loads as this process knows them."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random

from inferq.routing.placement.nodes import LoadName, NodeInfo, Snapshot
from inferq.routing.placement.profiles import Profile, refusal

#: Pools are kept for this many sizes of requests.
MOST_SIZES = 32


class Pool:
    """Nodes that can hold a request of some size, in random order.

    ``loads`` (of the same order) are those of the snapshot, corrected by what has been sent since.
    Policies read it and change nothing.
    """

    def __init__(self, nodes: Sequence[NodeInfo], load: LoadName, profile: Profile) -> None:
        self.nodes = nodes
        self.load = load
        self.profile = profile
        self.loads: list[float] = [getattr(node, load) for node in nodes]

    def __len__(self) -> int:
        return len(self.nodes)

    def learn(self, known: Mapping[str, float]) -> None:
        """Take newer loads. Only for whoever owns the pools."""
        for name, load in known.items():
            at = self.places.get(name)
            if at is not None:
                self.loads[at] = load

    @cached_property
    def names(self) -> list[str]:
        """In alphabetical order."""
        return sorted(self.places)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each node stands in ``nodes`` and ``loads``."""
        return {node.name: at for at, node in enumerate(self.nodes)}

    @cached_property
    def s_per_token(self) -> list[float]:
        """By measured rates; the median of the others stands in for one that is not known."""
        rates = [self.profile.rate(node) for node in self.nodes]
        known = [rate for rate in rates if rate > 0]
        usual = statistics.median(known) if known else 1.0
        return [1 / (rate if rate > 0 else usual) for rate in rates]


class Pools:
    """The pools of one snapshot, by size of request; made when they are first needed.

    With more than ``MOST_SIZES`` different sizes of nodes, a request is only shown nodes of the
    next larger size that is told apart: never one that is too small, and always the largest.
    """

    def __init__(
        self, snapshot: Snapshot, profile: Profile, load: LoadName, random: Random
    ) -> None:
        self.snapshot = snapshot
        self.profile = profile
        self.load = load
        now_ms = snapshot.now_ms
        self._nodes = [n for n in snapshot.nodes if not refusal(n, profile, now_ms)]
        # Each producer breaks ties in an order of its own.
        random.shuffle(self._nodes)
        sizes = sorted({node.longest for node in self._nodes}, reverse=True)
        self._sizes = sizes[:: max(1, -(-len(sizes) // MOST_SIZES))][::-1]
        self._pools: dict[int, Pool] = {}
        self._known: dict[str, float] = {}

    def holding(self, tokens: int) -> Pool:
        """The nodes that can hold so many tokens."""
        at = bisect_left(self._sizes, tokens)
        if at == len(self._sizes):
            return Pool((), self.load, self.profile)
        size = self._sizes[at]
        pool = self._pools.get(size)
        return pool or self._make(size)

    def learn(self, known: Mapping[str, float]) -> None:
        """Take loads that are newer than the snapshot's."""
        self._known.update(known)
        for pool in self._pools.values():
            pool.learn(known)

    def _make(self, size: int) -> Pool:
        nodes = [node for node in self._nodes if node.longest >= size]
        pool = self._pools[size] = Pool(nodes, self.load, self.profile)
        pool.learn(self._known)
        return pool
