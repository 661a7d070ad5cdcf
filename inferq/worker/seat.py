"""A node's seat in its topic: everything between a worker's engine and Redis."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Container
from threading import Event, Lock

from redis.exceptions import RedisError

from inferq.cluster.link import AWAY, Link, explained
from inferq.cluster.topic import Beat, Burial, Fenced, Return, Topic
from inferq.results.outbox import StreamOutbox
from inferq.settings import Settings
from inferq.transport.deliveries import Deliveries, Delivery, Ends
from inferq.transport.redis import Channel
from inferq.version import __version__
from inferq.worker.audit import Audit
from inferq.worker.membership import Hooks, Membership
from inferq.worker.node import Node
from inferq.worker.pool import AsyncPool
from inferq.worker.sorter import Sorter
from inferq.worker.taker import Events, Taker

logger = logging.getLogger(__name__)

#: Outputs that are left when a node leaves are written for at most this long, seconds.
LAST_FLUSH_S = 5.0
#: A node that drains looks so often whether it is done, seconds.
DRAIN_LOOK_S = 0.05


class Seat:
    """Joins, takes, streams, drains and leaves, for one worker process.

    ``join`` first; ``open`` once the engine runs; ``attach`` for each connection of Celery's
    consumer; ``drain`` and ``leave`` at the end. All for the main thread.
    """

    def __init__(self, settings: Settings, node: str, pool: AsyncPool) -> None:
        self._settings = settings
        self._node_name = node
        self._pool = pool
        self._node: Node | None = None
        self._topic = self._make_topic()
        self._topic_lock = Lock()
        self.outbox = StreamOutbox(settings, self._make_topic)
        ends = Ends(settled=self._settled, put_back=self._put_back, refused=self._refused)
        self.deliveries = Deliveries(ends, self._topic.base)
        self.membership = Membership(
            settings,
            self._make_topic(),
            node,
            Hooks(
                describe=self._describe,
                lost=self._on_lost,
                joined=self.outbox.begin,
                beat=self._on_beat,
            ),
        )
        taker_topic = self._make_topic()
        self._taker_topic = taker_topic
        self.taker = Taker(
            settings,
            taker_topic,
            node,
            self.membership,
            Events(cancelled=self._on_cancelled, fenced=self.membership.report_fenced),
        )
        #: Set when a node that drains is to hand back at once.
        self.hurry = Event()
        self._is_open = False

    def join(self, wait: Callable[[], bool]) -> None:
        """Take the node's name in the topic. See ``Membership.join``."""
        self.membership.join(wait)
        self.outbox.start(self.deliveries, self.membership.report_fenced)

    def attach(self, node: Node, channel: Channel, tasks: Container[str]) -> None:
        """Deliver to this channel from now on; the first one makes the node ready."""
        channel.attach(self.deliveries, frozenset({self._topic.base}))
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
        )
        node.intake.connect(self.taker.room, self._pool.call_soon)
        self.membership.largest = max(self.membership.largest, node.intake.rule.longest)
        self.membership.announce("ready", node.intake.rule.longest)
        audit = Audit(
            self._settings, self._taker_topic, self._node_name, self.deliveries, self.outbox
        )
        self.taker.start(node.intake, sorter, audit, self._is_stuck)

    def drain(self, timeout_s: float) -> None:
        """Take nothing more, finish what runs, hand back what is not done in time."""
        self.taker.stop()
        self.membership.announce("draining")
        give_up_at = time.monotonic() + timeout_s
        while len(self.deliveries) and time.monotonic() < give_up_at:
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
        """This node's record: what others, and operators, can know of it."""
        record = {
            "role": self._settings.role,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "engine": self._settings.engine,
            "version": __version__,
        }
        if self._node is not None:
            record |= self._node.engine.capacity()._asdict()
            record["running"] = len(self.deliveries)
        return json.dumps(record)

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
        self._try(lambda: self._topic.bury(self._node_name, inc, [burial]))

    def _release(self, delivery: Delivery) -> None:
        if self._node is not None:
            self._node.intake.released(delivery.tag)

    def _on_lost(self) -> None:
        for delivery in self.deliveries.drop_all():
            self._release(delivery)
        self.outbox.begin("")
        self._pool.drop()

    def _on_beat(self, beat: Beat) -> None:
        if beat.look:
            self.taker.look()

    def _on_cancelled(self, request_id: str) -> None:
        if self.deliveries.find(request_id) is not None:
            self._pool.terminate_task(request_id)

    def _is_stuck(self) -> bool:
        """Whether the engine has work and makes no progress."""
        idle_s = time.monotonic() - self.outbox.progressed_at
        return len(self.deliveries) > 0 and idle_s > self._settings.cluster.stall_s

    def _try(self, step: Callable[[], None]) -> None:
        """A step that recovery makes up for, if Redis is away."""
        try:
            with self._topic_lock:
                step()
        except Fenced:
            self.membership.report_fenced(self.membership.inc)
        except (*AWAY, RedisError) as exc:
            logger.warning("left to recovery: %s", explained(exc))
