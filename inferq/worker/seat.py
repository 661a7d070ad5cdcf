"""A node's seat in its topic: everything between a worker's engine and Redis."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Container
from contextlib import suppress
from threading import Event, Lock

from redis.exceptions import RedisError

from inferq.cluster.link import AWAY, Link, explained
from inferq.cluster.placing import Placing
from inferq.cluster.topic import Beat, Burial, Fenced, NodeState, Return, Topic
from inferq.results.outbox import StreamOutbox
from inferq.settings import Role, Settings
from inferq.transport.deliveries import Deliveries, Delivery, Ends
from inferq.transport.redis import Channel
from inferq.worker.audit import Audit
from inferq.worker.kept import free_unwanted
from inferq.worker.membership import Hooks, Membership
from inferq.worker.node import Node
from inferq.worker.pool import AsyncPool
from inferq.worker.record import describe
from inferq.worker.roles import check_role
from inferq.worker.sorter import Sorter
from inferq.worker.stats import Stats
from inferq.worker.taker import Events, Taker

logger = logging.getLogger(__name__)

#: Outputs that are left when a node leaves are written for at most this long, seconds.
LAST_FLUSH_S = 5.0
#: A node that drains looks so often whether it is done, seconds.
DRAIN_LOOK_S = 0.05


class Seat:
    """Joins, takes, streams, drains and leaves, for one worker process.

    ``join`` first; ``open`` once the engine runs; ``attach`` for each connection of Celery's
    consumer; ``pause`` and ``change_role`` meanwhile; ``drain`` and ``leave`` at the end. All for
    the main thread.
    """

    def __init__(self, settings: Settings, node: str, pool: AsyncPool) -> None:
        self._settings = settings
        self._node_name = node
        self._pool = pool
        self._node: Node | None = None
        self.stats = Stats()
        self._topic = self._make_topic()
        self._topic_lock = Lock()
        # Requests that go back to be prefilled again are taken by whoever is free.
        placing = Placing(settings, ["decode"])
        self.outbox = StreamOutbox(settings, node, self._make_topic, placing)
        ends = Ends(settled=self._settled, put_back=self._put_back, refused=self._refused)
        self.deliveries = Deliveries(ends)
        self.membership = Membership(
            settings,
            self._make_topic(),
            node,
            Hooks(
                describe=self._describe,
                lost=self._on_lost,
                joined=self.outbox.begin,
                beat=self._on_beat,
                missed=self.stats.missed_renewal,
            ),
        )
        taker_topic = self._make_topic()
        self._taker_topic = taker_topic
        self.taker = Taker(
            settings,
            taker_topic,
            node,
            self.membership,
            Events(
                cancelled=self._on_cancelled,
                dismissed=self._on_dismissed,
                deserted=self._on_deserted,
                fenced=self.membership.report_fenced,
                took=self.stats.took,
            ),
        )
        #: Set when a node that drains is to hand back at once.
        self.hurry = Event()
        self._is_open = False
        self._is_paused = False

    def join(self, wait: Callable[[], bool]) -> None:
        """Take the node's name in the topic. See ``Membership.join``."""
        self.membership.join(wait)
        self.outbox.start(
            self.deliveries, self.membership.report_fenced, self._on_half_failed, self.stats.ended
        )

    def attach(self, node: Node, channel: Channel, tasks: Container[str]) -> None:
        """Deliver to this channel from now on; the first one makes the node ready."""
        queues = frozenset({self._topic.base, self._topic.decode_base})
        channel.attach(self.deliveries, queues)
        self.deliveries.flush()
        if self._is_open:
            return
        self._is_open = True
        self._node = node
        sorter = Sorter(
            self._taker_topic,
            self._node_name,
            node.intake,
            self.deliveries,
            self.outbox,
            tasks,
            self._on_dismissed,
            self.stats.buried,
        )
        node.intake.connect(self.taker.room, self._pool.call_soon)
        self.membership.largest = max(self.membership.largest, node.intake.rule.longest)
        self._announce_ready(node)
        audit = Audit(
            self._settings, self._taker_topic, self._node_name, self.deliveries, self.outbox
        )
        self.taker.start(node.intake, sorter, audit, self.is_stuck)

    def change_role(self, role: Role) -> None:
        """Serve other phases from now on. What was taken is finished, what waits goes elsewhere.

        Raises:
            SettingsError: the scheduler has no such nodes.
        """
        check_role(self._settings.scheduler_name, role)
        node = self._node
        if node is None or role == node.role:
            return
        node.set_role(role)
        self._announce_ready(node)
        self.taker.look()

    def pause(self, paused: bool) -> None:
        """Take nothing more, or take again. Meanwhile the node runs on and finishes what it has.

        What waits in its own queues goes elsewhere. It stays so when a lease is lost.
        """
        self._is_paused = paused
        self.taker.pause(paused)
        if self._node is not None:
            self._announce_ready(self._node)

    def _announce_ready(self, node: Node) -> None:
        phases = {"prefill": self._topic.base, "decode": self._topic.decode_base}
        if self._settings.scheduler_name == "global":
            del phases["decode"]
        serves = [base for phase, base in phases.items() if node.role in ("mixed", phase)]
        self.taker.serves = serves
        state: NodeState = "draining" if self._is_paused else "ready"
        self.membership.announce(state, dict.fromkeys(serves, node.intake.rule.longest))

    def drain(self, timeout_s: float) -> None:
        """Take nothing more, finish what runs, hand back what is not done in time.

        KV caches that wait for a decode node count as running: they are gone with this process.
        """
        self.taker.stop()
        self.membership.announce("draining")
        # Celery's consumer has ended by now: what it has not taken yet would wait for nothing.
        for message, _ in self.deliveries.take(sys.maxsize):
            self.deliveries.put_back(message["properties"]["delivery_tag"])
        give_up_at = time.monotonic() + timeout_s
        while self._has_work() and time.monotonic() < give_up_at:
            if self.hurry.wait(DRAIN_LOOK_S):
                break
        left = self.deliveries.drop_all()
        if left:
            logger.warning("%d requests are handed back", len(left))
            self._pool.drop()
        self.outbox.stop(LAST_FLUSH_S)
        returns = [Return(delivery.claim, True) for delivery in left]
        if returns:
            self._try(lambda: self._topic.put_back(self._node_name, self.membership.inc, returns))

    def _has_work(self) -> bool:
        transfer = self._node.transfer if self._node is not None else None
        return len(self.deliveries) > 0 or (transfer is not None and bool(transfer.kept()))

    def leave(self) -> None:
        """Leave the topic; what is still claimed is queued again."""
        self.taker.stop()
        self.outbox.stop(LAST_FLUSH_S)
        self.membership.leave()
        self._topic.link.close()
        self.deliveries.close()

    def _make_topic(self) -> Topic:
        return Topic(self._settings, Link(self._settings))

    def _describe(self) -> str:
        node = self._node
        if node is None:
            return describe(self._settings)
        return describe(
            self._settings,
            node,
            running=len(self.deliveries),
            outbox_lag_s=round(self.outbox.backlog().oldest_s, 1),
            kept_kv=self._check_kept(node),
            stalled_s=int(self._stalled_s()),
        )

    def _settled(self, delivery: Delivery) -> None:
        self.outbox.settle(delivery)
        self._release(delivery)

    def _put_back(self, delivery: Delivery) -> None:
        self.outbox.forget(delivery)
        self._release(delivery)
        inc, returns = self.membership.inc, [Return(delivery.claim, True)]
        self._try(lambda: self._topic.put_back(self._node_name, inc, returns))

    def _refused(self, delivery: Delivery) -> None:
        self.outbox.forget(delivery)
        self._release(delivery)
        inc = self.membership.inc
        burial = Burial(delivery.claim, "rejected", "the worker refused the message")
        self.stats.buried("rejected")
        self._try(lambda: self._topic.bury(self._node_name, inc, [burial]))

    def _release(self, delivery: Delivery) -> None:
        if self._node is not None:
            self._node.deserted.discard(delivery.request_id)
            self._node.cancelled.discard(delivery.request_id)
            self._node.intake.released(delivery.tag)

    def _on_half_failed(self, request_id: str, code: str, message: str) -> None:
        inc = self.membership.inc
        self._try(lambda: self._topic.fail_half(request_id, inc, code, message))

    def _on_deserted(self, request_id: str) -> None:
        node = self._node
        if node is not None:
            self._pool.call_soon(lambda: self._desert(node, request_id))

    def _desert(self, node: Node, request_id: str) -> None:
        if self.deliveries.find(request_id) is not None:
            node.desert(request_id)

    def _on_lost(self) -> None:
        self.stats.lost_lease()
        for delivery in self.deliveries.drop_all():
            self._release(delivery)
        self.outbox.begin("")
        self._pool.drop()

    def _on_beat(self, beat: Beat) -> None:
        for _, returned, dead in beat.recovered:
            self.stats.recovered(returned, dead)
        if beat.look:
            self.taker.look()

    def _on_cancelled(self, request_id: str) -> None:
        if self._node is None or self.deliveries.find(request_id) is None:
            return
        # First: a message that is still on its way to the pool has no task that could be ended.
        self._node.cancelled.add(request_id)
        if self._pool.terminate_task(request_id):
            self._node.cancelled.discard(request_id)

    def _on_dismissed(self, request_id: str) -> None:
        delivery = self.deliveries.find(request_id)
        if delivery is not None and self.outbox.is_half(delivery.claim):
            self._pool.terminate_task(request_id)

    def is_stuck(self) -> bool:
        """Whether the engine has work and makes no progress."""
        return self._stalled_s() > self._settings.cluster.stall_s

    def _stalled_s(self) -> float:
        """How long the engine has had work without progress."""
        idle_s = time.monotonic() - self.outbox.progressed_at
        return idle_s if len(self.deliveries) else 0.0

    def _check_kept(self, node: Node) -> int:
        """Free KV caches that nobody will fetch; bytes that are kept. For the lease's thread."""
        if node.transfer is None:
            return 0
        with suppress(*AWAY, RedisError), self._topic_lock:
            free_unwanted(node.transfer, self._topic, self._settings.cluster.lease_ttl_s)
        return sum(entry.nbytes for entry in node.transfer.kept())

    def _try(self, step: Callable[[], object]) -> None:
        """A step that recovery makes up for, if Redis is away."""
        try:
            with self._topic_lock:
                step()
        except Fenced:
            self.membership.report_fenced(self.membership.inc)
        except (*AWAY, RedisError) as exc:
            logger.warning("left to recovery: %s", explained(exc))
