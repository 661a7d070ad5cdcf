"""A node's place in its topic: its name, its lease, and what happens when it is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from redis.exceptions import AuthenticationError, RedisError

from inferq.cluster.link import AWAY, Backoff, explained
from inferq.cluster.topic import Beat, Fenced, NameInUse, NodeState, Topic
from inferq.errors import SchedulerUnavailable
from inferq.settings import Settings

logger = logging.getLogger(__name__)

#: Beats in the life of a lease: one may be lost without harm.
BEATS_PER_LEASE = 3


class Hooks(NamedTuple):
    """What a node does about its membership; all are called by the lease's thread.

    ``describe`` is the node's record for others. ``lost``: nothing that was claimed is ours any
    more; returns when it has been dropped. ``joined``: a new incarnation begins. ``beat``: news.
    ``missed``: the lease could not be renewed when it was due.
    """

    describe: Callable[[], str]
    lost: Callable[[], None]
    joined: Callable[[str], None]
    beat: Callable[[Beat], None]
    missed: Callable[[], None]


class Membership:
    """Renews the lease from a thread of its own, and joins again when it was lost.

    ``inc`` is the current incarnation: the fencing token of all that this node writes.
    """

    def __init__(self, settings: Settings, topic: Topic, node: str, hooks: Hooks) -> None:
        self._settings = settings
        self._topic = topic
        self._node = node
        self._hooks = hooks
        self.inc = ""
        #: Longest request that some node of the topic can hold, tokens.
        self.largest = 0
        self._state: NodeState = "starting"
        self._limits: Mapping[str, int] = {}
        self._full_due_at = 0.0
        self._record = ""
        self._lock = threading.Lock()
        self._poke = threading.Event()
        self._stop = threading.Event()
        self._rejoined = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="inferq-lease", daemon=True)

    def join(self, wait: Callable[[], bool]) -> None:
        """Take the node's name, waiting for the lease of a process that had it and died.

        ``wait`` pauses while Redis is away; False gives up.

        Raises:
            SchedulerUnavailable: another live process has the name, or Redis cannot be used.
        """
        give_up_at = time.monotonic() + 2 * self._settings.cluster.lease_ttl_s
        while True:
            try:
                inc = self._register()
                break
            except NameInUse as exc:
                if time.monotonic() > give_up_at:
                    raise SchedulerUnavailable(
                        f"node name {self._node!r} is in use by another live worker of topic "
                        f"{self._settings.scheduler_topic!r}; start this one with another -n"
                    ) from None
                time.sleep(min(exc.wait_s, self._settings.cluster.lease_ttl_s) + 0.01)
            except AWAY as exc:
                if isinstance(exc, AuthenticationError) or not wait():
                    raise explained(exc) from None
                logger.warning("waiting to join: %s", explained(exc))
            except RedisError as exc:
                raise explained(exc) from None
        self._begin(inc)
        self._thread.start()

    def announce(self, state: NodeState, limits: Mapping[str, int] | None = None) -> None:
        """Tell others what this node does from now on.

        ``limits``: the shared queues of the phases that it serves, with the longest request that
        it can hold there, tokens. Without Redis, or while the lease is lost, it is told on the
        next occasion.
        """
        with self._lock:
            self._state, self._limits = state, self._limits if limits is None else limits
        try:
            self._set_state()
        except Fenced:
            self.report_fenced(self.inc)
        except (*AWAY, RedisError) as exc:
            logger.warning("state %s is not announced yet: %s", state, explained(exc))

    def leave(self) -> None:
        """End the incarnation: what is still claimed returns to the queue."""
        self._stop.set()
        self._poke.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.inc:
            self.announce("gone")
        self._topic.link.close()

    def report_fenced(self, inc: str) -> None:
        """A step was refused because the lease of ``inc`` is over; any thread may call this."""
        if inc == self.inc:
            self._poke.set()

    def wait_other(self, inc: str, timeout_s: float) -> None:
        """Wait until another incarnation than ``inc`` has begun."""
        with self._rejoined:
            self._rejoined.wait_for(lambda: self.inc != inc or self._stop.is_set(), timeout_s)

    def _register(self) -> str:
        self._record = self._hooks.describe()
        with self._lock:
            self._topic.require_rights("node")
            return self._topic.register(self._node, self._record)

    def _begin(self, inc: str) -> None:
        self._hooks.joined(inc)
        with self._rejoined:
            self.inc = inc
            self._rejoined.notify_all()

    def _set_state(self) -> None:
        with self._lock:
            self._topic.set_state(self._node, self.inc, self._state, self._limits)

    def _run(self) -> None:
        pause_s = self._settings.cluster.lease_ttl_s / BEATS_PER_LEASE
        backoff = Backoff(self._stop, most_s=pause_s)
        while not self._stop.is_set():
            try:
                self._beat()
                backoff.reset()
                self._poke.wait(pause_s)
                self._poke.clear()
            except Fenced:
                self._rejoin()
            except (*AWAY, RedisError) as exc:
                logger.warning("the lease cannot be renewed: %s", explained(exc))
                self._hooks.missed()
                backoff.wait()
            except Exception:  # such as an engine that cannot tell its capacity
                logger.exception("the lease cannot be renewed")
                self._hooks.missed()
                backoff.wait()

    def _beat(self) -> None:
        record = self._hooks.describe()
        new = "" if record == self._record else record
        now = time.monotonic()
        full = now >= self._full_due_at
        with self._lock:
            beat = self._topic.beat(self._node, self.inc, new, full=full)
        self._record = record
        if full:
            self._full_due_at = now + self._settings.scheduler_sync_period
        self.largest = beat.largest
        for inc, back, dead in beat.recovered:
            logger.warning("%s was lost: %d of its requests are queued again", inc, back)
            if dead:
                logger.error("%s was lost: %d of its requests are dead letters", inc, dead)
        self._hooks.beat(beat)

    def _rejoin(self) -> None:
        """Drop all that was ours, then begin anew."""
        logger.error("the lease of %s was lost: what it had claimed runs elsewhere", self.inc)
        self._hooks.lost()
        backoff = Backoff(self._stop)
        while not self._stop.is_set():
            try:
                self._begin(self._register())
                self._set_state()
                return
            except Fenced:
                continue
            except NameInUse as exc:
                logger.error("the node's name is in use by another process")
                self._stop.wait(exc.wait_s)
            except (*AWAY, RedisError) as exc:
                logger.warning("cannot join again: %s", explained(exc))
                backoff.wait()
