"""A topic's shared state: each method is one atomic step in Redis (see ``scripts/``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferq.cluster.keys import prefix_of, quoted, unquoted
from inferq.cluster.link import Link, ScriptName
from inferq.cluster.rows import (
    Adoption,
    Beat,
    Burial,
    Fenced,
    Group,
    Item,
    Look,
    NameInUse,
    NodeState,
    Outcome,
    Return,
    Room,
    Submitted,
    Taken,
)
from inferq.routing.topics import prefill_queue
from inferq.settings import Settings

__all__ = [
    "Adoption",
    "Beat",
    "Burial",
    "Fenced",
    "Group",
    "Item",
    "Look",
    "NameInUse",
    "NodeState",
    "Outcome",
    "Return",
    "Room",
    "Submitted",
    "Taken",
    "Topic",
]

#: Raw messages in dead letters are cut at this length, bytes.
MAX_LETTER_BYTES = 65_536
#: Nothing lives longer; what asks for more gets this, seconds.
MAX_TTL_S = 10 * 365 * 86_400


class Topic:
    """Runs a topic's scripts over one link. For one thread, like the link.

    Every method raises one of ``link.AWAY`` when Redis cannot be reached, and those that act for
    a node raise Fenced when it has lost its lease.
    """

    def __init__(self, settings: Settings, link: Link) -> None:
        self.settings = settings
        self.link = link
        self.prefix = prefix_of(settings.scheduler_topic)
        self.base = prefill_queue(settings.scheduler_topic)
        cluster = settings.cluster
        #: How long a producer may still repeat a call; twice what one call takes at most.
        self._kept_ms = int(cluster.redis_timeout_s * 2000)
        lease_ms = int(cluster.lease_ttl_s * 1000)
        #: What recovery needs, whichever step finds a lapsed node.
        self._recovery = {
            "bases": [self.base],
            "max_attempts": cluster.max_attempts,
            "max_dead": cluster.max_dead_letters,
            "max_letter_bytes": MAX_LETTER_BYTES,
            "lease_ms": lease_ms,
            "grave_ms": 2 * lease_ms + 1000,
            "request_ttl_ms": settings.scheduler_ttl * 1000,
            "kept_ms": self._kept_ms,
        }

    def submit(self, origin: str, token: str, items: Sequence[Item], node: str = "") -> Submitted:
        """Enqueue requests, all or none if an id is in use. Their time runs by Redis' clock.

        With ``node`` they go to that node's queue, if it is ready. Repeating a call with the same
        origin and token is safe: what it has enqueued before counts as accepted.
        """
        answer = self._run(
            "submit",
            base=self.base,
            node=node,
            origin=origin,
            token=token,
            items=[_row(item) for item in items],
            max_waiting=self.settings.cluster.max_waiting,
            min_load=self.settings.scheduler_min_load_score,
            lookahead=self.settings.admission.lookahead,
            kept_ms=self._kept_ms,
        )
        if answer[0] == b"duplicate":
            return Submitted(0, tuple(map(_text, answer[1])))
        return Submitted(answer[1])

    def cancel(
        self, request_id: str, *, origin: str = "", tell: bool = False, message: str = ""
    ) -> str:
        """Cancel a live request: ``queued``, ``running`` or ``unknown``.

        With ``origin``, a request of anybody else is unknown. ``tell``: its origin is to hear of
        it, with ``message``.
        """
        answer = self._run(
            "cancel",
            id=quoted(request_id),
            origin=origin,
            tell=tell,
            message=message or "cancelled",
            request_ttl_ms=self._recovery["request_ttl_ms"],
        )
        return _text(answer[0])

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
        return _text(answer[1])

    def beat(self, node: str, inc: str, record: str = "") -> Beat:
        """Renew the lease, and recover what lost nodes held."""
        answer = self._run(
            "beat",
            **self._recovery,
            node=node,
            inc=inc,
            record=record,
            expire_ms=self.settings.scheduler_expire_period * 1000,
        )
        _, now_ms, recovered, look, largest = answer
        rows = tuple((_text(inc), int(back), int(dead)) for inc, back, dead in recovered)
        return Beat(now_ms, rows, bool(look), int(largest))

    def set_state(self, node: str, inc: str, state: NodeState, longest: int = 0) -> None:
        """Announce what the node does from now on; ``gone`` ends its incarnation."""
        self._run("state", **self._recovery, node=node, inc=inc, state=state, limit=longest)

    def claim(
        self, node: str, inc: str, room: Room, *, reserve: str, largest: int, take: bool = True
    ) -> Look:
        """Take what fits into the room: from the own queue, the shared one, from other nodes.

        ``reserve``: the message for which room is to be kept (as ``Look.blocked`` named it);
        ``largest``: the longest request that some node can hold, tokens. Without ``take`` the node
        only gives back what it was handed. A node whose bell rang must look, at least so.
        """
        cluster = self.settings.cluster
        _, now_ms, rows, blocked, parked, is_empty, more = self._run(
            "claim",
            **self._recovery,
            node=node,
            inc=inc,
            base=self.base,
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
        taken = tuple(_taken(*row) for row in rows)
        return Look(now_ms, taken, _text(blocked), bool(parked), bool(is_empty), bool(more))

    def adopt(self, node: str, inc: str, items: Sequence[Adoption]) -> list[str]:
        """Make the ids of stock producers' messages known, so that they can be cancelled.

        For each: ``ok``; ``duplicate``, another request has this id, and the claim stays for the
        caller to decide; ``cancelled``, the claim is over; ``unknown``, it was over before.
        """
        rows = [(item.claim, quoted(item.request_id), item.origin) for item in items]
        answer = self._run("adopt", **self._recovery, node=node, inc=inc, items=rows)
        return [_text(verdict) for verdict in answer[1]]

    def put_back(self, node: str, inc: str, items: Sequence[Return]) -> None:
        """Return claims to the head of the shared queue, each to its old place.

        One that was started too often is dead, and its origin told; a cancelled one is dropped.
        """
        self._run("put_back", **self._recovery, node=node, inc=inc, items=[tuple(i) for i in items])

    def bury(self, node: str, inc: str, items: Sequence[Burial]) -> None:
        """Make dead letters of claims; their origins are told."""
        self._run("bury", **self._recovery, node=node, inc=inc, items=[tuple(i) for i in items])

    def emit(self, inc: str, groups: Sequence[Group]) -> list[int]:
        """Write outputs and settle what ended with them; an Outcome for each group."""
        answer = self._run(
            "emit",
            inc=inc,
            max_entries=self.settings.cluster.max_stream_entries,
            kept_ms=self._kept_ms,
            groups=[tuple(group) for group in groups],
        )
        return [int(outcome) for outcome in answer[1]]

    def claims(self, inc: str) -> list[int]:
        """The claims of an incarnation, as Redis has them."""
        keys: list[bytes] = self.link.call("HKEYS", f"{self.prefix}claims:{inc}")
        return [int(key) for key in keys]

    def set_shards(self, shards: int) -> None:
        """Change the number of shards of the load table; no row is lost."""
        self._run("shards", shards=shards)

    def _run(self, name: ScriptName, **arguments: Any) -> list[Any]:
        answer = self.link.run(name, {"prefix": self.prefix, **arguments})
        if answer[0] == b"fenced":
            raise Fenced
        return answer


def _row(item: Item) -> tuple[Any, ...]:
    ttl_ms = int(min(MAX_TTL_S, max(0.001, item.ttl_s)) * 1000)
    sizes = item.prompt_tokens, item.max_tokens
    return item.message, quoted(item.request_id), item.step, ttl_ms, *sizes


def _taken(
    claim: int, attempt: int, again: bool, source: bytes, quoted_id: bytes, *rest: Any
) -> Taken:
    return Taken(claim, attempt, bool(again), _text(source), unquoted(_text(quoted_id)), *rest)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
