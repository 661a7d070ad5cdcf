"""A topic's shared state: each method is one atomic step in Redis (see ``scripts/``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from inferq.cluster.keys import prefix_of, quoted
from inferq.cluster.link import Link, ScriptName
from inferq.routing.topics import prefill_queue
from inferq.settings import Settings

NodeState = Literal["starting", "ready", "draining", "gone"]
#: Raw messages in dead letters are cut at this length, bytes.
MAX_LETTER_BYTES = 65_536


class Fenced(Exception):  # noqa: N818 - an event, not an error
    """This incarnation of the node has lost its lease: its claims belong to others now."""


class NameInUse(Exception):  # noqa: N818
    """Another live process has the node's name; ``wait_s``: until its lease lapses."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class Item(NamedTuple):
    """A request on its way into a queue. ``step``: which list, from 1."""

    raw: bytes
    request_id: str
    step: int
    ttl_s: float


class Submitted(NamedTuple):
    """How many of the requests, from the first on, found room; or which ids are in use."""

    accepted: int
    duplicates: tuple[str, ...] = ()


class Room(NamedTuple):
    """What a node can take in one look; see routing/admission.py for the meaning."""

    slots: int
    blocks: int
    tokens: int
    prefills: int
    longs: int
    idle: bool
    chunked: bool
    block_size: int
    reserved: int
    total_blocks: int
    long_from: int
    longest: int


class Taken(NamedTuple):
    """A message that this node has claimed.

    ``number`` is the claim. ``again``: it was claimed before. ``source``: the node it was stolen
    from, or empty. Sizes in tokens, 0 when the producer did not say. ``raw``: the message.
    """

    number: int
    attempt: int
    again: bool
    source: str
    prompt_tokens: int
    max_tokens: int
    raw: str


class Look(NamedTuple):
    """What came of a look at the queues.

    ``blocked`` identifies the first message that does not fit. ``parked``: there was nothing to
    take, and the node will be woken. ``is_empty``: nothing waits in the shared queue. ``more``:
    look again at once.
    """

    now_ms: int
    taken: tuple[Taken, ...]
    blocked: str
    parked: bool
    is_empty: bool
    more: bool


class Beat(NamedTuple):
    """What a node learns when it renews its lease.

    ``recovered``: (incarnation, requests returned, requests dead) of nodes that were lost.
    ``look``: there may be work. ``largest``: longest request that some node can hold, tokens.
    """

    now_ms: int
    recovered: tuple[tuple[str, int, int], ...]
    look: bool
    largest: int


class Return(NamedTuple):
    """A claim to be given back; ``started``: outputs of it may have been sent already."""

    number: int
    started: bool = False
    prompt_tokens: int = 0
    max_tokens: int = 0


class Burial(NamedTuple):
    """A claim that cannot be run, and why."""

    number: int
    request_id: str
    reason: str
    detail: str


class Outcome:
    """What became of a group of outputs."""

    DONE, GONE, FULL = 0, 1, 2


class Group(NamedTuple):
    """Outputs for one stream, with the claims and results that go with them, all or nothing."""

    stream: str
    blob: bytes
    settles: Sequence[tuple[int, str]] = ()
    results: Sequence[tuple[str, bytes, int]] = ()


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
        self._bases = [self.base]
        ttl_ms = int(settings.cluster.lease_ttl_s * 1000)
        #: What recovery needs, whichever step finds a lapsed node.
        self._recovery = {
            "bases": self._bases,
            "max_attempts": settings.cluster.max_attempts,
            "max_dead": settings.cluster.max_dead_letters,
            "max_letter_bytes": MAX_LETTER_BYTES,
            "ttl_ms": ttl_ms,
            "grave_ms": 2 * ttl_ms + 1000,
        }

    def submit(self, origin: str, token: str, items: Sequence[Item], node: str = "") -> Submitted:
        """Enqueue requests. Repeating a call with the same token is safe."""
        answer = self._run(
            "submit",
            base=self.base,
            node=node,
            origin=origin,
            token=token,
            items=[
                (i.raw, quoted(i.request_id), i.step, max(1, int(i.ttl_s * 1000))) for i in items
            ],
            max_waiting=self.settings.cluster.max_waiting,
            min_load=self.settings.scheduler_min_load_score,
        )
        if answer[0] == "duplicate":
            return Submitted(0, tuple(answer[1]))
        return Submitted(answer[1])

    def cancel(self, request_id: str, *, tell: bool = False, message: str = "") -> str:
        """Cancel a live request: ``queued``, ``running`` or ``unknown``."""
        answer = self._run("cancel", id=quoted(request_id), tell=tell, message=message)
        return str(answer[0])

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
        if answer[0] == "busy":
            raise NameInUse(answer[1] / 1000)
        return str(answer[1])

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
        rows = tuple((str(inc), int(back), int(dead)) for inc, back, dead in recovered or ())
        return Beat(now_ms, rows, bool(look), int(largest))

    def set_state(self, node: str, inc: str, state: NodeState, longest: int = 0) -> None:
        """Announce what the node does from now on; ``gone`` ends its incarnation."""
        self._run("state", **self._recovery, node=node, inc=inc, state=state, limit=longest)

    def claim(
        self, node: str, inc: str, room: Room, *, reserve: str, largest: int, take: bool = True
    ) -> Look:
        """Take what fits into the room: from the own queue, the shared one, from other nodes."""
        cluster = self.settings.cluster
        _, now_ms, rows, blocked, parked, is_empty, more = self._run(
            "claim",
            node=node,
            inc=inc,
            base=self.base,
            own=True,
            steal=take,
            park=take,
            room=room._asdict(),
            batch=min(cluster.claim_batch, max(1, room.slots)),
            lookahead=self.settings.admission.lookahead,
            reserve=reserve,
            order=cluster.order,
            ageing=cluster.ageing_tokens_per_s,
            min_load=self.settings.scheduler_min_load_score,
            steal_after_ms=int(cluster.steal_after_s * 1000),
            max_bytes=self.settings.limits.max_message_bytes,
            largest=largest,
            max_dead=cluster.max_dead_letters,
            max_letter_bytes=MAX_LETTER_BYTES,
        )
        taken = tuple(Taken(*row) for row in rows or ())
        return Look(now_ms, taken, blocked, bool(parked), bool(is_empty), bool(more))

    def put_back(self, node: str, inc: str, items: Sequence[Return]) -> None:
        """Return claims to the head of the shared queue, in order."""
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
            groups=[tuple(group) for group in groups],
        )
        return [int(outcome) for outcome in answer[1]]

    def set_shards(self, shards: int) -> None:
        """Change the number of shards of the load table; no row is lost."""
        self._run("shards", shards=shards)

    def _run(self, name: ScriptName, **arguments: Any) -> list[Any]:
        answer = self.link.run(name, {"prefix": self.prefix, **arguments})
        if answer[0] == "fenced":
            raise Fenced
        return answer
