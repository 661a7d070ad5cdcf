"""A topic's shared state: each method is one atomic step in Redis (see ``scripts/``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgpack

from inferq.cluster.answers import text
from inferq.cluster.keys import quoted
from inferq.cluster.operating import OperatorSteps
from inferq.cluster.packing import Placements, read_placed, read_taken
from inferq.cluster.producing import ProducerSteps
from inferq.cluster.rows import (
    Adoption,
    Beat,
    Burial,
    Fenced,
    Group,
    Hop,
    Item,
    Look,
    NameInUse,
    NodeState,
    Outcome,
    Placed,
    Return,
    Room,
    Settle,
    Submitted,
    Taken,
    Target,
)

__all__ = [
    "Adoption",
    "Beat",
    "Burial",
    "Fenced",
    "Group",
    "Hop",
    "Item",
    "Look",
    "NameInUse",
    "NodeState",
    "Outcome",
    "Placed",
    "Return",
    "Room",
    "Settle",
    "Submitted",
    "Taken",
    "Target",
    "Topic",
]


class Topic(ProducerSteps, OperatorSteps):
    """All steps: those of nodes are here. For one thread, like its link."""

    def hop(self, node: str, inc: str, hops: Sequence[Hop]) -> list[Placed | None]:
        """Pass claims on to the other phase.

        Returns where each went; None: nowhere, as it was cancelled, or its origin is gone, or it
        has been started too often.
        """
        placements = Placements(self.base)
        rows = [
            (*hop[:8], placements.add(hop.target, hop.prompt_tokens + hop.max_tokens, hop.base))
            for hop in hops
        ]
        answer = self._run(
            "hop",
            **self._recovery,
            node=node,
            inc=inc,
            items=rows,
            placements=placements.rows,
            min_load=self.settings.scheduler_min_load_score,
            lookahead=self.settings.admission.lookahead,
        )
        return [read_placed(*row) if row else None for row in answer[1]]

    def register(self, node: str, record: str) -> str:
        """Join as a node with a new fencing token; returns the incarnation.

        Raises:
            NameInUse: another live process has this name.
        """
        answer = self._run(
            "register",
            **self._recovery,
            node=node,
            record=record,
            shards=self.settings.scheduler_load_shards_num,
        )
        if answer[0] == b"busy":
            raise NameInUse(answer[1] / 1000)
        return text(answer[1])

    def beat(self, node: str, inc: str, record: str = "", *, full: bool = False) -> Beat:
        """Renew the lease, and recover what lost nodes held.

        ``full``: count the node's work anew.
        """
        answer = self._run(
            "beat",
            **self._recovery,
            node=node,
            inc=inc,
            record=record,
            full=full and self._counts,
            release_ms=self.settings.scheduler_release_load_expire_period * 1000,
            expire_ms=self.settings.scheduler_expire_period * 1000,
        )
        _, now_ms, recovered, look, largest = answer
        rows = tuple((text(inc), int(back), int(dead)) for inc, back, dead in recovered)
        return Beat(now_ms, rows, bool(look), int(largest))

    def set_state(
        self, node: str, inc: str, state: NodeState, limits: Mapping[str, int] | None = None
    ) -> None:
        """Announce what the node does from now on; ``gone`` ends its incarnation.

        ``limits``: when it is ready, the shared queues of the phases that it serves, with the
        longest request that it can hold there, tokens. What waits for it in others goes elsewhere.
        """
        rows = list((limits or {}).items())
        self._run("state", **self._recovery, node=node, inc=inc, state=state, limits=rows)

    def claim(
        self,
        node: str,
        inc: str,
        room: Room,
        *,
        reserve: str,
        largest: int,
        take: bool = True,
        serves: Sequence[str] = (),
    ) -> Look:
        """Take what fits into the room: from the own queue, the shared one, from other nodes.

        ``serves``: the shared queues of the phases that the node serves; none: of new requests.
        ``reserve``: the message for which room is to be kept (as ``Look.blocked`` named it);
        ``largest``: the longest request that some node can hold, tokens. Without ``take`` the node
        only gives back what it was handed. A node whose bell rang must look, at least so.
        """
        cluster = self.settings.cluster
        _, now_ms, rows, blocked, parked, is_empty, listens, more = self._run(
            "claim",
            **self._recovery,
            node=node,
            inc=inc,
            serves=list(serves) or [self.base],
            take=take,
            room=room._asdict(),
            batch=cluster.claim_batch,
            lookahead=self.settings.admission.lookahead,
            reserve=reserve,
            order=cluster.order,
            ageing=cluster.ageing_tokens_per_s,
            min_load=self.settings.scheduler_min_load_score,
            steal_after_ms=int(cluster.steal_after_s * 1000),
            max_bytes=self.settings.limits.max_message_bytes,
            largest=largest,
        )
        taken = tuple(read_taken(*row) for row in rows)
        flags = map(bool, (parked, is_empty, listens, more))
        return Look(now_ms, taken, text(blocked), *flags)

    def adopt(self, node: str, inc: str, items: Sequence[Adoption]) -> list[str]:
        """Make the ids of stock producers' messages known, so that they can be cancelled.

        For each: ``ok``; ``duplicate``, another request has this id, and the claim stays for the
        caller to decide; ``cancelled``, the claim is over; ``unknown``, it was over before.
        """
        rows = [(item.claim, quoted(item.request_id), item.origin) for item in items]
        answer = self._run("adopt", **self._recovery, node=node, inc=inc, items=rows)
        return [text(verdict) for verdict in answer[1]]

    def put_back(self, node: str, inc: str, items: Sequence[Return]) -> None:
        """Return claims to the head of the shared queue, each to its old place.

        One that was started too often is dead, and its origin told; a cancelled one is dropped.
        """
        self._run("put_back", **self._recovery, node=node, inc=inc, items=[tuple(i) for i in items])

    def bury(self, node: str, inc: str, items: Sequence[Burial]) -> None:
        """Make dead letters of claims; their origins are told."""
        self._run("bury", **self._recovery, node=node, inc=inc, items=[tuple(i) for i in items])

    def emit(self, node: str, inc: str, groups: Sequence[Group]) -> list[int]:
        """Write outputs and settle what ended with them; an Outcome for each group."""
        answer = self._run(
            "emit",
            node=node,
            inc=inc,
            bases=self._recovery["bases"],
            counts=self._counts,
            max_ended=self.settings.cluster.max_ended,
            max_entries=self.settings.cluster.max_stream_entries,
            kept_ms=self._kept_ms,
            groups=[tuple(group) for group in groups],
        )
        return [int(outcome) for outcome in answer[1]]

    def claims(self, inc: str) -> list[int]:
        """The claims of an incarnation, as Redis has them."""
        keys: list[bytes] = self.link.call("HKEYS", f"{self.prefix}claims:{inc}")
        return [int(key) for key in keys]

    def ended(self, request_ids: Sequence[str]) -> list[str]:
        """Those of the requests that are not live any more."""
        if not request_ids:
            return []
        keys = [f"{self.prefix}req:{quoted(name)}" for name in request_ids]
        values = self.link.call("MGET", *keys)
        return [
            name
            for name, value in zip(request_ids, values, strict=True)
            if value is None or msgpack.unpackb(value, raw=True)[0] in (b"c", b"d")
        ]
