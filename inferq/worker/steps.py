"""Bootsteps: where the node joins the life of a Celery worker."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals
from celery.exceptions import ImproperlyConfigured
from celery.worker import state

from inferq.errors import SettingsError
from inferq.monitoring import logs
from inferq.monitoring.metrics import open_endpoint
from inferq.monitoring.metrics.parts import Parts
from inferq.transport import memory, redis
from inferq.worker.node import Node
from inferq.worker.onward import Onward
from inferq.worker.pool import AsyncPool
from inferq.worker.seat import Seat

if TYPE_CHECKING:
    from inferq.monitoring.metrics.endpoint import Endpoint

logger = logging.getLogger(__name__)

#: Between attempts to join while Redis is away, seconds.
JOIN_PAUSE_S = 0.5


class NodeStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the engine after the pool, on the pool's event loop, and stops it before.

    Among other nodes, it takes its seat before the engine loads, and leaves it at the end.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._node: Node | None = None
        self._seat: Seat | None = None
        self._signals = 0
        self._endpoint: Endpoint | None = None

    def create(self, worker: Any) -> Any:
        """Refuse what cannot work, before anything starts."""
        if not isinstance(worker.pool, AsyncPool):
            raise ImproperlyConfigured(
                f"worker_pool={type(worker.pool).__module__}: inferq's tasks run on "
                "inferq.worker.pool:AsyncPool only; leave -P away"
            )
        worker.pool.with_repr = bool(worker.task_events)
        settings = worker.app.settings
        if settings.scheduler_name != "local":  # else the logs are those of the client's program
            logs.configure(settings, worker.hostname)
        try:
            self._endpoint = open_endpoint(settings, worker.hostname)
        except SettingsError:
            worker.pool.stop()  # its event loop is there already
            raise
        return self

    def start(self, worker: Any) -> None:
        """Take the seat, load the engine."""
        settings = worker.app.settings
        if self._endpoint is not None:
            self._endpoint.start(lambda: Parts(self._node, self._seat))
        if settings.scheduler_name != "local":
            self._seat = worker.app.seat = Seat(settings, worker.hostname, worker.pool)
            worker.app.backend.outbox = self._seat.outbox
            self._seat.join(_wait_for_redis)
            signals.worker_shutting_down.connect(self._on_signal)
        onward = None
        if settings.scheduler_name == "splitwise" and self._seat is not None:
            onward = Onward(worker.app, settings, self._seat.outbox)
        stats = self._seat.stats if self._seat is not None else None
        node = Node(settings, worker.app.backend, worker.hostname, onward, stats)
        worker.pool.call(node.start())
        self._node = worker.app.node = node

    def stop(self, worker: Any) -> None:
        """Warm shutdown: what was taken is finished, or handed back, before the engine goes."""
        if self._seat is not None:
            self._seat.drain(worker.app.settings.cluster.drain_timeout_s)
        else:
            worker.pool.drain()
        self._unload(worker)

    def terminate(self, worker: Any) -> None:
        """Cold shutdown: what runs is dropped and its messages return to their queues."""
        if self._seat is not None:
            self._seat.drain(0.0)
        worker.pool.drop()
        self._unload(worker)

    def info(self, worker: Any) -> dict[str, Any]:
        """Shown by ``inspect stats`` and on Flower's page of this worker."""
        del worker
        if self._node is None:
            return {}
        capacity = self._node.engine.capacity()._asdict()
        return {"inferq": {**capacity, "claims": len(self._node.intake.claims)}}

    def _on_signal(self, how: str = "", **_: Any) -> None:
        """A second signal, or a harsh first one, ends the waiting of a drain."""
        self._signals += 1
        if self._seat is not None and (self._signals > 1 or how == "Cold"):
            self._seat.hurry.set()

    def _unload(self, worker: Any) -> None:
        node, self._node = self._node, None
        if node is not None:
            worker.pool.call(node.stop())
        seat, self._seat = self._seat, None
        if seat is not None:
            signals.worker_shutting_down.disconnect(self._on_signal)
            seat.leave()
        if self._endpoint is not None:
            self._endpoint.stop()


def _wait_for_redis() -> bool:
    """Pause before another attempt to join; False when the worker is to stop."""
    time.sleep(JOIN_PAUSE_S)
    return state.should_stop in (None, False) and state.should_terminate in (None, False)


class IntakeStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Puts the node between the transport and the consumer, for each new connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Gate the channel that tasks come from, or feed it."""
        channel = consumer.task_consumer.channel
        app = consumer.app
        if isinstance(channel, memory.Channel):
            intake = app.node.intake
            intake.connect(channel.broker.wake, consumer.pool.call_soon)
            channel.gated_queues = frozenset(q.name for q in consumer.task_consumer.queues)
            channel.gate = intake
        elif isinstance(channel, redis.Channel) and app.seat is not None:
            app.seat.attach(app.node, channel, app.tasks)
        else:
            raise ImproperlyConfigured(
                f"broker transport {type(channel).__module__}: it cannot ask before it takes; "
                "leave -b and broker_url away, the settings say where Redis is"
            )
