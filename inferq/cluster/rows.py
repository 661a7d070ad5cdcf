"""What goes into the steps of a topic, and what comes out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

NodeState = Literal["starting", "ready", "draining", "gone"]


class Fenced(Exception):
    """This incarnation of the node has lost its lease: its claims belong to others now."""


class NameInUse(Exception):
    """Another live process has the node's name; ``wait_s``: until its lease lapses."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class Target(NamedTuple):
    """Nodes that may get a message, best first; a script makes the choice.

    The cost of a node is ``bias + weight * load``, where its load, of that very moment, is in
    ``unit``. Of the first ``among`` that can take it, the first goes whose cost is within
    ``slack`` of the least. See routing/placement.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    biases: tuple[float, ...]
    slack: float = 0.0
    among: int = 8
    unit: Literal["tokens", "requests"] = "tokens"


class Item(NamedTuple):
    """A request on its way into a queue.

    ``message`` is a stock message, a JSON object. ``step``: which of the queue's lists, from 1.
    Sizes in tokens, 0 when not known. ``target``: none for the shared queue.
    """

    message: bytes
    request_id: str
    step: int
    ttl_s: float
    prompt_tokens: int = 0
    max_tokens: int = 0
    target: Target | None = None


class Placed(NamedTuple):
    """Where a message with a target went (empty: the shared queue), and the load there now."""

    node: str
    load: float


class Submitted(NamedTuple):
    """How many of the requests, from the first on, found room; or which (quoted) ids are in use.

    ``placed``: where those new ones with a target went, in order.
    """

    accepted: int
    duplicates: tuple[str, ...] = ()
    placed: tuple[Placed, ...] = ()


class Hop(NamedTuple):
    """A claim that goes on in the other phase, as ``message``, in the queue ``base``.

    ``again``: it starts anew, as its next attempt. ``holds``: this node works on for it, beside
    the one that takes it next. ``stream``: of its outputs, or empty. Sizes in tokens.
    """

    claim: int
    base: str
    message: bytes
    prompt_tokens: int
    max_tokens: int
    again: bool = False
    holds: bool = False
    stream: str = ""
    target: Target | None = None


class Settle(NamedTuple):
    """The end of a claim. ``failed``: without an answer. ``held``: another node had the claim by
    then, this one computed the other half. ``story``: what is noted of the request's life.
    """

    claim: int
    quoted_id: str
    failed: bool = False
    held: bool = False
    story: bytes = b""


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
    hands_off: bool = False


class Taken(NamedTuple):
    """A message that this node has claimed.

    ``claim`` identifies the claim: never used before, nor again. ``attempt``: how often it was
    started before. ``again``: it was claimed before. ``source``: the node it was stolen from, or
    empty. ``request_id``: empty for a stock producer's message. Sizes in tokens, 0 when the
    producer did not say. Times in ms of Redis' clock. ``queue``: the shared one of its phase.
    ``raw``: the message.
    """

    claim: int
    attempt: int
    again: bool
    source: str
    request_id: str
    prompt_tokens: int
    max_tokens: int
    submitted_ms: int
    deadline_ms: int
    queue: str
    raw: bytes


class Look(NamedTuple):
    """What came of a look at the queues.

    ``blocked`` identifies the first message that does not fit. ``parked``: nothing (more) can be
    taken now, and the node's bell will ring when there is something new; it must look again then.
    ``is_empty``: nothing waits that more room would help to take. ``listens``: the node must also
    wait for what comes into the first list of the shared prefill queue (BLMOVE to
    ``keys.staged_key``). ``more``: look again at once.
    """

    now_ms: int
    taken: tuple[Taken, ...]
    blocked: str
    parked: bool
    is_empty: bool
    listens: bool
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

    claim: int
    started: bool = False
    prompt_tokens: int = 0
    max_tokens: int = 0


class Burial(NamedTuple):
    """A claim that cannot be run, and why: a word and a sentence."""

    claim: int
    reason: str
    detail: str


class Adoption(NamedTuple):
    """A stock producer's claimed message, whose id the node has read. ``origin``: ``reply_to``."""

    claim: int
    request_id: str
    origin: str


class Outcome:
    """What became of a group of outputs."""

    DONE, GONE, FULL = 0, 1, 2


class Group(NamedTuple):
    """Outputs for one stream, with the claims and results that go with them, all or nothing."""

    stream: str
    blob: bytes
    settles: Sequence[Settle] = ()
    results: Sequence[tuple[str, bytes, int]] = ()
