"""A plain model of a topic: what the scripts are to do, without Redis, leases or clocks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MAX_ATTEMPTS = 3
LOOKAHEAD = 3
BATCH = 4
MIN_LOAD = 2
STEPS = 4
#: Tokens of the answer of every request.
ANSWER = 1


@dataclass(eq=False)
class Message:
    """A message in one place. ``place``: its rank since it was first looked at."""

    body: str
    step: int
    prompt: int
    has_record: bool
    place: float = math.inf
    attempt: int = 0

    @property
    def total(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt + ANSWER


Queue = dict[int, list[Message]]


def new_queue() -> Queue:
    """A queue's lists by step; the head of a list is its first element."""
    return {step: [] for step in range(1, STEPS + 1)}


@dataclass(eq=False)
class Node:
    """A live incarnation. ``blocks``: tokens of prompts it has room for at once."""

    name: str
    slots: int
    blocks: int
    longest: int
    state: str = "ready"
    queue: Queue = field(default_factory=new_queue)
    claims: dict[str, Message] = field(default_factory=dict)
    staged: list[Message] = field(default_factory=list)

    @property
    def free_slots(self) -> int:
        """How many more requests it has room for."""
        return self.slots - len(self.claims)

    @property
    def free_blocks(self) -> int:
        """Tokens it has room for."""
        return self.blocks - sum(message.prompt for message in self.claims.values())


@dataclass
class Taking:
    """What is left to take in one look, and what was taken: (body, source)."""

    slots: int
    blocks: int
    taken: list[tuple[Message, str]] = field(default_factory=list)
    passed: int = 0
    blocked: str = ""

    def wants_more(self, most: int) -> bool:
        """Whether to look at the next message."""
        return self.slots > 0 and len(self.taken) < most and self.passed < LOOKAHEAD


class Model:
    """The topic. Bodies identify messages; they are also the ids of those that have a record."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.shared = new_queue()
        self.loads: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.letters: list[tuple[str, str]] = []
        #: Queues of nodes that have left, and when each was last released.
        self.orphans: dict[str, Queue] = {}
        self.released: dict[str, int] = {}
        self._releases = 0
        #: What was left of the slots in the last look.
        self.slots_left = 0
        self._place = 0

    # Queues

    def put_at_head(self, queue: Queue, step: int, messages: list[Message]) -> None:
        """Return messages to their places between those at the head that have one."""
        waiting = queue[step]
        last = max((message.place for message in messages), default=0)
        count = 0
        while count < len(waiting) and waiting[count].place <= last < math.inf:
            count += 1
        if last == math.inf:
            while count < len(waiting) and waiting[count].place < math.inf:
                count += 1
        merged = sorted(messages + waiting[:count], key=lambda message: message.place)
        queue[step] = merged + waiting[count:]

    def release(self, queue: Queue) -> None:
        """All that waits in a queue goes to the head of the shared one."""
        for step, waiting in queue.items():
            self.shared[step] = waiting + self.shared[step]
            queue[step] = []

    def release_orphans(self) -> None:
        """What was sent to nodes that have left goes to all; who was not looked at comes first."""
        for name in sorted(self.orphans, key=lambda name: (self.released[name], name)):
            self.release(self.orphans[name])
            self._releases += 1
            self.released[name] = self._releases

    def return_staged(self, node: Node) -> None:
        """What a node was handed goes back."""
        self.put_at_head(self.shared, 1, node.staged)
        node.staged = []

    def give_back(self, node: Node, bodies: list[str], *, started: bool) -> None:
        """Claims return, or end if they were cancelled or started too often."""
        by_step: dict[int, list[Message]] = {}
        for body in bodies:
            message = node.claims.pop(body)
            message.attempt += started
            if body in self.cancelled:
                continue
            if message.attempt >= MAX_ATTEMPTS:
                self.letters.append((body, "attempts"))
            else:
                by_step.setdefault(message.step, []).append(message)
        for step, messages in by_step.items():
            self.put_at_head(self.shared, step, messages)

    def note_load(self, node: Node) -> int:
        """Write a node's row of the load table; its load."""
        queued = sum(map(len, node.queue.values()))
        load = queued + len(node.claims)
        if queued:
            self.loads[node.name] = load
        else:
            self.loads.pop(node.name, None)
        return load

    # Nodes

    @property
    def largest(self) -> int:
        """Longest request that a ready node can hold."""
        return max((n.longest for n in self.nodes.values() if n.state == "ready"), default=0)

    def end(self, node: Node) -> None:
        """Take everything away from a node."""
        del self.nodes[node.name]
        self.loads.pop(node.name, None)
        self.release(node.queue)
        self.orphans[node.name] = node.queue
        self.released[node.name] = 0
        self.return_staged(node)
        self.give_back(node, list(node.claims), started=True)

    def drain(self, node: Node) -> None:
        """A node takes nothing more."""
        node.state = "draining"
        self.loads.pop(node.name, None)
        self.return_staged(node)
        self.release(node.queue)

    # Taking

    def claim(self, node: Node) -> list[tuple[str, str]]:
        """What a node takes: (body, node it was stolen from)."""
        self.return_staged(node)
        taking = Taking(node.free_slots, node.free_blocks)
        had_own = any(node.queue.values())
        if had_own:
            self._take_from(node.queue, node, taking, BATCH, is_own=True)
        self._take_from(self.shared, node, taking, BATCH)
        if not taking.taken and taking.slots > 0:
            self._steal(node, taking)
        got = []
        for message, source in taking.taken:
            if message.body not in self.cancelled:
                node.claims[message.body] = message
                got.append((message.body, source))
        if had_own:
            self.note_load(node)
        self.slots_left = taking.slots
        return got

    def _take_from(
        self,
        queue: Queue,
        node: Node,
        taking: Taking,
        most: int,
        *,
        is_own: bool = False,
        source: str = "",
    ) -> None:
        taking.passed = 0
        for step in queue:
            if not taking.wants_more(most):
                return
            left: list[Message] = []
            forward: list[Message] = []
            while taking.wants_more(most):
                count = min(most - len(taking.taken), taking.slots)
                window, queue[step] = queue[step][:count], queue[step][count:]
                if not window:
                    break
                self._rank(window)
                for message in window:
                    verdict = "leave"
                    if taking.wants_more(most):
                        verdict = self._judge(message, node, taking, is_own=is_own)
                        taking.passed += verdict == "leave"
                    if verdict == "take":
                        taking.taken.append((message, source))
                    elif verdict == "forward":
                        forward.append(message)
                    else:
                        left.append(message)
            queue[step] = left + queue[step]
            self.put_at_head(self.shared, step, forward)

    def _rank(self, window: list[Message]) -> None:
        for message in window:
            if message.place == math.inf:
                self._place += 1
                message.place = self._place

    def _judge(self, message: Message, node: Node, taking: Taking, *, is_own: bool) -> str:
        if message.total > node.longest:
            if message.total <= self.largest:
                return "forward" if is_own else "leave"
            return "take"
        if message.prompt <= taking.blocks:
            taking.slots -= 1
            taking.blocks -= message.prompt
            return "take"
        taking.blocked = taking.blocked or message.body
        return "leave"

    def _steal(self, node: Node, taking: Taking) -> None:
        victims = sorted(self.loads, key=lambda name: (self.loads[name], name), reverse=True)
        for name in victims:
            if name == node.name:
                continue
            victim = self.nodes[name]
            load = self.note_load(victim)
            queued = load - len(victim.claims)
            own = len(node.claims)
            if not (queued and load > MIN_LOAD and load > own + 1):
                continue
            most = min(BATCH, max(1, (load - max(MIN_LOAD, own)) // 2))
            self._take_from(victim.queue, node, taking, most, source=name)
            self.note_load(victim)
            if taking.taken:
                return
