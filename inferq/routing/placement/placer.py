"""Places requests: the policy, the last snapshot, and what was sent since."""

from __future__ import annotations

import logging

from inferq.routing.placement.nodes import Ask, Snapshot
from inferq.routing.placement.policy import Policy
from inferq.routing.placement.pool import Pool, Pools
from inferq.routing.placement.profiles import explain
from inferq.routing.placement.shortlist import Shortlist, checked, choose

logger = logging.getLogger(__name__)


class Placer:
    """Makes shortlists for one phase. For one thread at a time.

    Call ``reading`` before a snapshot is read, ``refresh`` with it, ``place`` for each request
    and ``placed`` with what the script answers.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        #: The node that the last request would go to by the loads that are known here.
        self.expected = ""
        self._pools = self._made(Snapshot())
        #: Loads by node that are newer than the coming snapshot, while it is read.
        self._reading: dict[str, float] | None = None
        self._complained = False

    @property
    def snapshot(self) -> Snapshot:
        """The last one."""
        return self._pools.snapshot

    def reading(self) -> None:
        """A snapshot is about to be read: what is sent from now on may be missing in it."""
        self._reading = {}

    def refresh(self, snapshot: Snapshot) -> None:
        """Use a newer snapshot; what was sent before it was read is in it and is forgotten here."""
        self._pools = self._made(snapshot)
        self._pools.learn(self._reading or {})
        self._reading = None
        self._complained = False

    def place(self, ask: Ask) -> Shortlist:
        """The candidates for a request; what it will add to the likely one counts at once.

        Without candidates it waits in the shared queue; the ``reason`` is then for its origin, and
        empty where the policy wants just that.
        """
        pool = self._pools.holding(ask.total_tokens)
        if not pool:
            reason = explain(self.snapshot, self.policy.profile, ask)
            return Shortlist(load=self.policy.load, reason=reason)
        shortlist = self._asked(pool, ask)
        self._expect(pool, shortlist, ask)
        return shortlist

    def placed(self, name: str, load: float) -> None:
        """The script has chosen this node, whose load is now that."""
        self._learn({name: load})

    def _made(self, snapshot: Snapshot) -> Pools:
        policy = self.policy
        return Pools(snapshot, policy.profile, policy.load, policy.random)

    def _asked(self, pool: Pool, ask: Ask) -> Shortlist:
        try:
            shortlist = checked(self.policy.shortlist(pool, ask))
        except Exception:
            # A policy of a user's own must stop no request, nor fill the log: once a snapshot.
            if not self._complained:
                self._complained = True
                logger.exception("policy %s failed; requests wait for any node", self.policy)
            return Shortlist(load=pool.load)
        return shortlist if shortlist.load == pool.load else shortlist._replace(load=pool.load)

    def _expect(self, pool: Pool, shortlist: Shortlist, ask: Ask) -> None:
        loads = {
            name: pool.loads[pool.places[name]] for name in shortlist.names if name in pool.places
        }
        name = choose(shortlist, loads, loads.__contains__)
        self.expected = name or ""
        if name is not None:
            requests = pool.load == "decode_requests"
            more = 1 if requests else self.policy.profile.pledge(ask)
            self._learn({name: loads[name] + more})

    def _learn(self, loads: dict[str, float]) -> None:
        if self._reading is not None:
            self._reading.update(loads)
        self._pools.learn(loads)
