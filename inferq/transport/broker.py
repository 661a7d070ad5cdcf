"""The broker in memory: named queues shared by the threads of one process."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from kombu.transport import virtual

from inferq.messages import PRIORITIES
from inferq.transport.gate import Cycle, RawMessage
from inferq.transport.queue import Entry, MemoryQueue, task_id

#: Most events or control messages kept for a reader that does not read; the oldest go first.
MAX_BROADCASTS = 10_000


class Claimed(NamedTuple):
    """A message taken from a queue, with what it needs to find its place again."""

    queue: str
    entry: Entry


class Owner(NamedTuple):
    """The node that a queue belongs to, for those who may take over some of its work.

    ``claims``: says how many messages it holds now. ``longest``: the largest request that it can
    hold at all, prompt and answer, tokens. One that is gone leaves its queue to others.
    """

    claims: Callable[[], int]
    longest: int
    is_gone: bool = False


class Backlog(NamedTuple):
    """What the owner of a queue has to do.

    ``load``: messages that wait or that it holds. ``waited_s``: for how long the first one has
    waited; without end when the owner is gone.
    """

    waiting: int
    load: int
    waited_s: float


class Broker:
    """Queues, and a signal for those who wait on them.

    Claims are counted here from the moment they are taken: taking and recording is one step
    under one lock. Putting takes no lock: a thread that loses the interpreter while it holds
    one would stop all others. Messages go through ``_inbound``, which whoever looks at the
    queues empties first.
    """

    _brokers: ClassVar[dict[str, Broker]] = {}
    _registry_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.state = virtual.BrokerState()
        #: By the name of the queue.
        self.owners: dict[str, Owner] = {}
        #: Held while somebody takes from a queue that belongs to another.
        self.stealing = threading.Lock()
        self._inbound: deque[tuple[str, Entry]] = deque()
        self._queues: dict[str, MemoryQueue] = {}
        self._claims: dict[str, Claimed] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._versions = itertools.count(1)
        self._version = 0
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0

    @classmethod
    def named(cls, name: str) -> Broker:
        """The broker of this name, made when it does not exist."""
        with cls._registry_lock:
            return cls._brokers.setdefault(name, cls())

    @classmethod
    def discard(cls, name: str) -> None:
        """Forget the broker of this name with all its messages."""
        with cls._registry_lock:
            cls._brokers.pop(name, None)

    @property
    def version(self) -> int:
        """Differs after every change that a waiting consumer may care about."""
        return self._version

    def wait(self, version: int, timeout_s: float | None) -> bool:
        """Wait until something changed since ``version``; False when the time is over."""
        with self._changed:
            # Counted before the version is read: who changes it reads the count afterwards.
            self._waiting += 1
            try:
                return self._changed.wait_for(lambda: self._version != version, timeout_s)
            finally:
                self._waiting -= 1

    def wake(self) -> None:
        """Make all consumers look again: a message came, room became free, they are to stop."""
        self._version = next(self._versions)
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def declare(self, queue: str) -> None:
        """Make a queue exist."""
        with self._lock:
            self._queue(queue)

    def exists(self, queue: str) -> bool:
        """Whether the queue was declared or used."""
        with self._lock:
            self._absorb()
            return queue in self._queues

    def put(self, queue: str, message: RawMessage) -> None:
        """Add a message at the end of its priority."""
        entry = Entry(next(self._numbers), priority_of(message), message, time.monotonic())
        self._inbound.append((queue, entry))
        self.wake()

    def take(self, queue: str, cycle: Cycle | None, *, record: bool) -> RawMessage | None:
        """Take the first message that ``cycle`` lets through; with ``record`` as a claim."""
        with self._lock:
            self._absorb()
            entry = self._queue(queue).take(cycle)
            if entry is None:
                return None
            if record:
                self._claims[tag_of(entry.message)] = Claimed(queue, entry)
            return entry.message

    def settle(self, delivery_tag: str) -> None:
        """The claim is over."""
        self._claims.pop(delivery_tag, None)

    def put_back(self, delivery_tag: str) -> None:
        """Return a claimed message to its place in its queue, marked as redelivered."""
        claimed = self._claims.pop(delivery_tag, None)
        if claimed is None:
            return
        entry = claimed.entry._replace(message=redelivered(claimed.entry.message))
        with self._lock:
            self._absorb()
            self._queue(claimed.queue).put(entry)
        self.wake()

    def remove(self, request_id: str) -> bool:
        """Remove the waiting message of a request, wherever it waits."""
        with self._lock:
            self._absorb()
            return any(queue.remove(request_id) for queue in self._queues.values())

    def size(self, queue: str) -> int:
        """Messages that wait in the queue."""
        with self._lock:
            self._absorb()
            return len(self._queues.get(queue, ()))

    def backlog(self, queue: str) -> Backlog:
        """What a node has to do, at one moment: a message that it takes is counted once."""
        with self._lock:
            self._absorb()
            waiting = self._queue(queue)
            owner = self.owners[queue]
            first = waiting.first()
            since = 0.0 if first is None else time.monotonic() - first.arrived_at
            waited_s = math.inf if owner.is_gone else since
            return Backlog(len(waiting), len(waiting) + owner.claims(), waited_s)

    def claims(self) -> int:
        """Messages taken and not yet settled."""
        return len(self._claims)

    def purge(self, queue: str) -> int:
        """Remove all waiting messages of the queue; returns how many."""
        with self._lock:
            self._absorb()
            return self._queue(queue).clear()

    def delete(self, queue: str) -> None:
        """Remove the queue."""
        with self._lock:
            self._absorb()
            self._queues.pop(queue, None)

    def _queue(self, name: str) -> MemoryQueue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = MemoryQueue()
        return queue

    def _absorb(self) -> None:
        """Sort what was put into its queues; the lock is held."""
        while self._inbound:
            name, entry = self._inbound.popleft()
            queue = self._queue(name)
            queue.put(entry)
            if task_id(entry.message) is None and len(queue) > MAX_BROADCASTS:
                queue.take(None)


def priority_of(message: RawMessage) -> int:
    """The message's priority, 0 (first) to 9; what is no number counts as 0."""
    try:
        value = int(message["properties"]["priority"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0
    return min(max(value, 0), PRIORITIES - 1)


def tag_of(message: RawMessage) -> str:
    """The delivery tag: unique for each message in a broker."""
    return str(message["properties"]["delivery_tag"])


def redelivered(message: RawMessage) -> RawMessage:
    """A copy of the message that says it was delivered before, where Celery looks for it."""
    properties = message["properties"]
    info = {**properties.get("delivery_info", {}), "redelivered": True}
    return {**message, "properties": {**properties, "delivery_info": info}}
