"""A topic's shared state: each method is one atomic step in Redis (see ``scripts/``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from inferq.cluster.keys import prefix_of, quoted, unquoted
from inferq.cluster.link import Link, ScriptName
from inferq.cluster.rights import Part, require_rights
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
from inferq.routing.topics import decode_queue, prefill_queue
from inferq.settings import Settings

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
        #: The shared queues: of new requests, of prefilled ones.
        self.base = prefill_queue(settings.scheduler_topic)
        self.decode_base = decode_queue(settings.scheduler_topic)
        #: Whether the work of each node is counted, for placing.
        self._counts = settings.scheduler_name == "splitwise"
        cluster = settings.cluster
        #: How long a producer may still repeat a call; twice what one call takes at most.
        self._kept_ms = int(cluster.redis_timeout_s * 2000)
        lease_ms = int(cluster.lease_ttl_s * 1000)
        #: What recovery needs, whichever step finds a lapsed node.
        self._recovery = {
            "bases": [self.base, self.decode_base],
            "counts": self._counts,
            "max_attempts": cluster.max_attempts,
            "max_dead": cluster.max_dead_letters,
            "max_letter_bytes": MAX_LETTER_BYTES,
            "lease_ms": lease_ms,
            "grave_ms": 2 * lease_ms + 1000,
            "request_ttl_ms": settings.scheduler_ttl * 1000,
            "kept_ms": self._kept_ms,
        }

    def require_rights(self, part: Part) -> None:
        """See that the connection's user has all rights, before a script misses one half way.

        Raises:
            NoPermissionError: names those that are missing.
        """
        require_rights(self.link, part, self.settings)

    def submit(self, origin: str, token: str, items: Sequence[Item], node: str = "") -> Submitted:
        """Enqueue requests, all or none if an id is in use. Their time runs by Redis' clock.

        With ``node`` they go to that node's queue, if it is ready. Repeating a call with the same
        origin and token is safe: what it has enqueued before counts as accepted.
        """
        placements = _Placements(self.base)
        answer = self._run(
            "submit",
            base=self.base,
            bases=self._recovery["bases"],
            counts=self._counts,
            node=node,
            origin=origin,
            token=token,
            items=[(*_row(item), placements.add(item.target, _needs(item))) for item in items],
            placements=placements.rows,
            max_waiting=self.settings.cluster.max_waiting,
            min_load=self.settings.scheduler_min_load_score,
            lookahead=self.settings.admission.lookahead,
            kept_ms=self._kept_ms,
        )
        if answer[0] == b"duplicate":
            return Submitted(0, tuple(map(_text, answer[1])))
        return Submitted(answer[1], placed=tuple(_placed(*row) for row in answer[2]))

    def hop(self, node: str, inc: str, hops: Sequence[Hop]) -> list[Placed | None]:
        """Pass claims on to the other phase.

        Returns where each went; None: nowhere, as it was cancelled, or its origin is gone, or it
        has been started too often.
        """
        placements = _Placements(self.base)
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
        return [_placed(*row) if row else None for row in answer[1]]

    def cancel(
        self, request_id: str, *, origin: str = "", tell: bool = False, message: str = ""
    ) -> str:
        """Cancel a live request: ``queued``, ``running`` or ``unknown``.

        With ``origin``, a request of anybody else is unknown. ``tell``: its origin is to hear of
        it, with ``message``.
        """
        return self._end(request_id, origin=origin, tell=tell, message=message or "cancelled")

    def fail_half(self, request_id: str, holder: str, code: str, message: str) -> str:
        """The half of a request that the incarnation ``holder`` computes has failed."""
        return self._end(
            request_id, holder=holder, tell=True, reason="error", code=code, message=message
        )

    def _end(
        self,
        request_id: str,
        *,
        origin: str = "",
        holder: str = "",
        tell: bool = False,
        reason: str = "cancelled",
        code: str = "cancelled",
        message: str,
    ) -> str:
        answer = self._run(
            "cancel",
            id=quoted(request_id),
            bases=self._recovery["bases"],
            origin=origin,
            holder=holder,
            tell=tell,
            reason=reason,
            code=code,
            message=message,
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
        rows = tuple((_text(inc), int(back), int(dead)) for inc, back, dead in recovered)
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
        taken = tuple(_taken(*row) for row in rows)
        flags = map(bool, (parked, is_empty, listens, more))
        return Look(now_ms, taken, _text(blocked), *flags)

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

    def requeue(self, letter_id: str) -> str:
        """A dead letter becomes a request again: ``requeued``, or a word for why not."""
        answer = self._run(
            "requeue",
            letter=letter_id,
            bases=self._recovery["bases"],
            counts=self._counts,
            max_waiting=self.settings.cluster.max_waiting,
            min_load=self.settings.scheduler_min_load_score,
            lookahead=self.settings.admission.lookahead,
            request_ttl_ms=self._recovery["request_ttl_ms"],
            kept_ms=self._kept_ms,
        )
        return _text(answer[0])

    def purge(self, queue: str, most: int, message: str) -> int:
        """Cancel requests that wait in one list; their origins are told.

        Returns how many were taken off it; at most ``most``.
        """
        answer = self._run(
            "purge",
            key=queue.encode("utf-8", "surrogateescape"),
            most=most,
            bases=self._recovery["bases"],
            counts=self._counts,
            message=message,
            request_ttl_ms=self._recovery["request_ttl_ms"],
            kept_ms=self._kept_ms,
        )
        return int(answer[1])

    def set_shards(self, shards: int) -> None:
        """Change the number of shards of the load table; no row is lost."""
        self._run("shards", shards=shards, bases=self._recovery["bases"])

    def _run(self, name: ScriptName, **arguments: Any) -> list[Any]:
        answer = self.link.run(name, {"prefix": self.prefix, **arguments})
        if answer[0] == b"fenced":
            raise Fenced
        return answer


def _row(item: Item) -> tuple[Any, ...]:
    ttl_ms = int(min(MAX_TTL_S, max(0.001, item.ttl_s)) * 1000)
    sizes = item.prompt_tokens, item.max_tokens
    return item.message, quoted(item.request_id), item.step, ttl_ms, *sizes


def _placed(node: bytes, load: float) -> Placed:
    return Placed(_text(node), load)


def _taken(
    claim: int, attempt: int, again: bool, source: bytes, quoted_id: bytes, *rest: Any
) -> Taken:
    prompt, answer, submitted_ms, deadline_ms, queue, raw = rest
    return Taken(
        claim,
        attempt,
        bool(again),
        _text(source),
        unquoted(_text(quoted_id)),
        prompt,
        answer,
        submitted_ms,
        deadline_ms,
        _text(queue),
        raw,
    )


def _needs(item: Item) -> int:
    """Tokens that a node of the first phase needs room for, as far as they are known."""
    return item.prompt_tokens + 1  # a prefill node needs room for the first token only


class _Placements:
    """The distinct targets of a call, each said once."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._numbers: dict[tuple[Any, ...], int] = {}
        self.rows: list[tuple[Any, ...]] = []

    def add(self, target: Target | None, tokens: int, base: str = "") -> int:
        """The number of a target, from 1; 0 for the shared queue."""
        if target is None or not target.names:
            return 0
        row = (base or self._base, *target, tokens)
        number = self._numbers.get(row)
        if number is None:
            self.rows.append(row)
            number = self._numbers[row] = len(self.rows)
        return number


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
