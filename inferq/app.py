"""The Celery application: queues, tasks, pool and bootsteps, as inferq needs them."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from inferq.routing.topics import decode_queue, prefill_queue
from inferq.settings import Settings
from inferq.tasks import DECODE, PREFILL, register_tasks
from inferq.transport import register_transports
from inferq.worker.node import Node
from inferq.worker.steps import IntakeStep, NodeStep


class InferqApp(Celery):  # type: ignore[misc]
    """A Celery application that knows its settings and, in a worker, its node."""

    task_cls = "inferq.worker.task:AsyncTask"

    #: Set by the worker once its engine runs.
    node: Node

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        super().__init__("inferq", set_as_current=False, **kwargs)
        self.settings = settings


def create_app(settings: Settings, *, broker_url: str, result_backend: str) -> InferqApp:
    """An application for the settings, on the given broker and backend."""
    register_transports()
    app = InferqApp(settings)
    app.conf.update(
        broker_url=broker_url,
        result_backend=result_backend,
        **_configuration(settings),
    )
    app.steps["worker"].add(NodeStep)
    app.steps["consumer"].add(IntakeStep)
    register_tasks(app)
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    prefill = prefill_queue(settings.scheduler_topic)
    decode = decode_queue(settings.scheduler_topic)
    return {
        # Data is not code: nothing here reads pickle.
        "accept_content": ["json", "msgpack"],
        "task_serializer": "msgpack",
        "result_serializer": "json",
        "event_serializer": "json",
        "task_queues": [Queue(name, routing_key=name) for name in (prefill, decode)],
        "task_default_queue": prefill,
        "task_routes": {PREFILL: {"queue": prefill}, DECODE: {"queue": decode}},
        # A message is acknowledged when its request has ended, whichever way.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_pool": "inferq.worker.pool:AsyncPool",
        "worker_concurrency": settings.limits.max_claims,
        # The intake bounds what is taken; a count of messages would be one bound too many.
        "worker_prefetch_multiplier": 0,
        "worker_disable_rate_limits": True,
        "worker_hijack_root_logger": False,
        "result_backend_thread_safe": True,
        "result_expires": settings.scheduler_ttl,
        "broker_connection_retry_on_startup": True,
    }
