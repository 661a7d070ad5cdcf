"""Bootsteps: where the node joins the life of a Celery worker."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.exceptions import ImproperlyConfigured

from inferq.transport.memory import Channel
from inferq.worker.node import Node
from inferq.worker.pool import AsyncPool

logger = logging.getLogger(__name__)


class NodeStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the engine after the pool, on the pool's event loop, and stops it before."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._node: Node | None = None

    def create(self, worker: Any) -> Any:
        """Refuse pools that cannot run a coroutine, before anything starts."""
        if not isinstance(worker.pool, AsyncPool):
            raise ImproperlyConfigured(
                f"worker_pool={type(worker.pool).__module__}: inferq's tasks run on "
                "inferq.worker.pool:AsyncPool only; leave -P away"
            )
        worker.pool.with_repr = bool(worker.task_events)
        return self

    def start(self, worker: Any) -> None:
        """Load the engine."""
        node = Node(worker.app.settings, worker.app.backend)
        worker.pool.call(node.start())
        self._node = worker.app.node = node

    def stop(self, worker: Any) -> None:
        """Warm shutdown: what was taken is finished before the engine goes."""
        worker.pool.drain()
        self._unload(worker)

    def terminate(self, worker: Any) -> None:
        """Cold shutdown: what runs is dropped and its messages return to their queues."""
        worker.pool.drop()
        self._unload(worker)

    def info(self, worker: Any) -> dict[str, Any]:
        """Shown by ``inspect stats`` and on Flower's page of this worker."""
        del worker
        if self._node is None:
            return {}
        capacity = self._node.engine.capacity()._asdict()
        return {"inferq": {**capacity, "claims": len(self._node.intake.claims)}}

    def _unload(self, worker: Any) -> None:
        node, self._node = self._node, None
        if node is not None:
            worker.pool.call(node.stop())


class IntakeStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Puts the node's intake between the transport and the consumer."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Gate the channel that tasks come from."""
        channel = consumer.task_consumer.channel
        if not isinstance(channel, Channel):
            raise ImproperlyConfigured(
                f"broker transport {type(channel).__module__}: it cannot ask before it takes"
            )
        intake = consumer.app.node.intake
        intake.connect(channel.broker.wake, consumer.pool.call_soon)
        channel.gated_queues = frozenset(q.name for q in consumer.task_consumer.queues)
        channel.gate = intake
