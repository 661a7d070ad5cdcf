"""The taker: claims from the topic's queues what the engine can start now."""

from __future__ import annotations

import json
import logging
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from inferq.cluster.keys import bell_key, staged_key
from inferq.cluster.link import AWAY, Backoff, explained
from inferq.cluster.topic import Fenced, Look, Room, Taken, Topic
from inferq.routing.admission import Budget
from inferq.settings import Settings
from inferq.transport.wakeup import Wakeup
from inferq.worker.audit import Audit
from inferq.worker.intake import Intake
from inferq.worker.membership import Membership
from inferq.worker.sorter import Sorter
from inferq.worker.waiter import Waiter

logger = logging.getLogger(__name__)

#: How long nothing can be taken before the thread looks around by itself, seconds.
IDLE_S = 1.0


class Events(NamedTuple):
    """What the taker tells its node. ``cancelled``: a request is not wanted any more.
    ``dismissed``: only the half of it that this node computes beside another one is not.
    ``deserted``: the node that computes its other half was lost. ``took``: what was claimed.
    """

    cancelled: Callable[[str], None]
    dismissed: Callable[[str], None]
    deserted: Callable[[str], None]
    fenced: Callable[[str], None]
    took: Callable[[Sequence[Taken]], None]


class Taker:
    """A thread that looks when there may be something to take and room for it.

    It waits for three things at once: a message in the shared queue, which Redis hands to one
    idle node only; the node's bell, which other nodes and producers ring; and room in the engine.
    """

    def __init__(
        self,
        settings: Settings,
        topic: Topic,
        node: str,
        membership: Membership,
        events: Events,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._node = node
        self._membership = membership
        self._events = events
        #: The shared queues of the phases that the node serves.
        self.serves: Sequence[str] = (topic.base,)
        self._is_paused = False
        self._wakeup = Wakeup()
        self._queue = Waiter(settings, settings.cluster.lease_ttl_s)
        self._bell = Waiter(settings, settings.cluster.lease_ttl_s)
        self._stop = threading.Event()
        self._look_due = True
        #: The last look found nothing that more room would help to take.
        self._is_content = False
        self._blocked = ""
        self._look_again_at = 0.0
        self._is_stuck: Callable[[], bool] = lambda: False
        self._intake: Intake
        self._sorter: Sorter
        self._audit: Audit
        self._thread = threading.Thread(target=self._run, name="inferq-taker", daemon=True)

    def start(
        self, intake: Intake, sorter: Sorter, audit: Audit, is_stuck: Callable[[], bool]
    ) -> None:
        """Start taking."""
        self._intake, self._sorter, self._audit = intake, sorter, audit
        self._is_stuck = is_stuck
        self._thread.start()

    def look(self) -> None:
        """Look at the queues soon: there may be work, or room. For any thread."""
        self._look_due = True
        self._wakeup.set()

    def room(self) -> None:
        """Room became free in the engine; look if something waits for it. For any thread."""
        if not self._is_content:
            self.look()

    def pause(self, paused: bool) -> None:
        """Take nothing, or take again, from the next look on. For any thread."""
        self._is_paused = paused
        self.look()

    def stop(self) -> None:
        """Take nothing from now on; returns when the last claim was handed over."""
        self._stop.set()
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        backoff = Backoff(self._stop)
        while not self._stop.is_set():
            inc = self._membership.inc
            try:
                self._turn(inc)
                backoff.reset()
            except Fenced:
                self._drop_waiters()
                self._events.fenced(inc)
                self._membership.wait_other(inc, self._settings.cluster.lease_ttl_s)
                self._look_due = True
            except (*AWAY, RedisError) as exc:
                logger.warning("nothing can be taken: %s", explained(exc))
                self._drop_waiters()
                self._look_due = True
                backoff.wait()
            except Exception:
                # Whatever a message has brought about must not end the node. The audit gives
                # back what was claimed with it, until it is a dead letter.
                logger.exception("a look at the queues failed")
                self._look_due = True
                backoff.wait()
        self._drop_waiters()
        self._topic.link.close()

    def _drop_waiters(self) -> None:
        self._queue.close()
        self._bell.close()

    def _turn(self, inc: str) -> None:
        """Look, if there is a reason to, until there is nothing more to take; then wait."""
        listens = False
        if self._audit.run_if_due(inc):
            self._look_due = True  # never `|=`: another thread may set it during the call
        while self._look_due and not self._stop.is_set():
            self._look_due = False
            listens = self._look(inc)
        if self._is_paused and self._queue.is_waiting:
            self._queue.close()
            self._look_due = True  # what was handed over at this moment is given back
        if not self._bell.is_waiting:
            self._bell.send("BLPOP", bell_key(self._topic.prefix, inc))
        if listens and not self._queue.is_waiting:
            staged = staged_key(self._topic.prefix, inc)
            self._queue.send("BLMOVE", self._topic.base, staged, "RIGHT", "RIGHT")
        if not self._look_due:
            self._wait()

    def _look(self, inc: str) -> bool:
        """Take what fits; True when the next message of the shared queue is to be handed to us."""
        # Before room is measured: what becomes free from here on calls for another look.
        self._is_content = False
        look = None if self._is_paused or self._is_stuck() else self._intake.open()
        may_take = look is not None and not self._stop.is_set()
        room = room_of(look.budget, self._intake) if look is not None else NO_ROOM
        reserve = ""
        if self._blocked:
            waited_s = self._intake.blocked_for(self._blocked)
            if waited_s >= self._settings.admission.pass_by_s:
                reserve = self._blocked
        result = self._topic.claim(
            self._node,
            inc,
            room,
            reserve=reserve,
            largest=self._membership.largest,
            take=may_take,
            serves=self.serves,
        )
        if look is not None and result.taken:
            self._events.took(result.taken)
            if self._sorter.sort(inc, result, look.budget):
                self._look_due = True
        self._note_blocked(result)
        if may_take and result.more:
            self._look_due = True
        self._is_content = result.parked and result.is_empty and not result.blocked
        return result.listens

    def _note_blocked(self, result: Look) -> None:
        """A message that does not fit gets room of its own after a while."""
        self._blocked = result.blocked
        self._look_again_at = 0.0
        if self._blocked:
            left_s = self._settings.admission.pass_by_s - self._intake.blocked_for(self._blocked)
            if left_s > 0:
                self._look_again_at = time.monotonic() + left_s

    def _wait(self) -> None:
        poller = select.poll()
        poller.register(self._wakeup.fileno(), select.POLLIN)
        poller.register(self._bell.fileno(), select.POLLIN)
        if self._queue.is_waiting:
            poller.register(self._queue.fileno(), select.POLLIN)
        timeout_s = IDLE_S
        if self._look_again_at:
            timeout_s = min(timeout_s, max(0.0, self._look_again_at - time.monotonic()))
        ready = {fd for fd, _ in poller.poll(timeout_s * 1000)}
        self._wakeup.clear()
        if self._look_again_at and time.monotonic() >= self._look_again_at:
            self._look_due = True
        self._read(self._queue, ready, self._on_handed)
        self._read(self._bell, ready, self._on_bell)

    def _read(self, waiter: Waiter, ready: set[int], handle: Callable[[Any], None]) -> None:
        if not waiter.is_waiting:
            return
        if waiter.fileno() in ready:
            answer = waiter.read()
            if answer is not None:
                handle(answer)
            elif waiter is self._queue:
                self._look_due = True  # to be told again whether to wait for it
        elif waiter.is_overdue:
            raise TimeoutError("Redis does not answer")

    def _on_handed(self, message: Any) -> None:
        del message  # it is staged: the next look takes it, or returns it
        self._look_due = True

    def _on_bell(self, answer: Any) -> None:
        self._look_due = True
        try:
            kind, *rest = json.loads(answer[1])
        except (ValueError, TypeError):
            return
        if kind == "cancel" and rest and isinstance(rest[0], str):
            self._events.cancelled(rest[0])
        elif kind == "dismissed" and rest and isinstance(rest[0], str):
            self._events.dismissed(rest[0])
        elif kind == "deserted" and rest and isinstance(rest[0], str):
            self._events.deserted(rest[0])


NO_ROOM = Room(0, 0, 0, 0, 0, False, False, 1, 0, 0, 0, 0)


def room_of(budget: Budget, intake: Intake) -> Room:
    """What the claim script needs to judge as the admission rule does."""
    rule = intake.rule
    return Room(
        slots=budget.slots,
        blocks=max(0, budget.blocks),
        tokens=max(0, budget.prefill_tokens),
        prefills=max(0, budget.prefills),
        longs=max(0, budget.long_prefills),
        idle=budget.idle,
        chunked=rule.settings.enable_chunked_prefill,
        block_size=rule.block_size,
        reserved=rule.settings.reserved_output_blocks,
        total_blocks=rule.total_blocks,
        long_from=rule.long_from,
        longest=rule.longest,
        hands_off=intake.hands_off,
    )
