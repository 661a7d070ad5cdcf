"""The Celery application: queues, tasks, pool and bootsteps, as inferq needs them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from celery import Celery
from kombu import Queue

from inferq.cluster.address import address_of, kombu_url
from inferq.routing.topics import decode_queue, prefill_queue
from inferq.settings import Settings
from inferq.tasks import DECODE, PREFILL, register_tasks
from inferq.transport import REDIS_SCHEME, REDIS_TRANSPORT, register_transports
from inferq.worker import panel  # noqa: F401 - makes its control commands known
from inferq.worker.node import Node
from inferq.worker.options import add_options
from inferq.worker.seat import Seat
from inferq.worker.steps import IntakeStep, NodeStep

REDIS_BACKEND = "inferq.results.redis:StreamBackend"


class InferqApp(Celery):  # type: ignore[misc]
    """A Celery application that knows its settings and, in a worker, its node."""

    task_cls = "inferq.worker.task:AsyncTask"

    #: Set by the worker once its engine runs.
    node: Node
    #: Its place among other nodes; None in local mode.
    seat: Seat | None = None

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        super().__init__("inferq", set_as_current=False, **kwargs)
        self.settings = settings

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """The class of ``celery worker``."""
        return self.subclass_with_self("inferq.worker.program:Program")

    def configure(self, settings: Settings) -> None:
        """Follow these settings from now on; before a worker is set up."""
        self.settings = settings
        self.conf.update(_configuration(settings))
        if settings.scheduler_name != "local":
            self.conf.update(_redis_configuration(settings))


def create_app(settings: Settings, *, broker_url: str, result_backend: str) -> InferqApp:
    """An application for the settings, on the given broker and backend."""
    register_transports()
    app = InferqApp(settings)
    app.conf.update(broker_url=broker_url, result_backend=result_backend)
    app.configure(settings)
    app.steps["worker"].add(NodeStep)
    app.steps["consumer"].add(IntakeStep)
    register_tasks(app)
    add_options(app)
    return app


def create_cluster_app(settings: Settings) -> InferqApp:
    """An application for nodes and producers that share the Redis of the settings."""
    url = kombu_url(settings)
    backend = f"{REDIS_BACKEND}+{url.removeprefix(REDIS_SCHEME + '+')}"
    return create_app(settings, broker_url=url, result_backend=backend)


def _configuration(settings: Settings) -> dict[str, Any]:
    prefill = prefill_queue(settings.scheduler_topic)
    decode = decode_queue(settings.scheduler_topic)
    queues = (prefill,) if settings.scheduler_name == "global" else (prefill, decode)
    return {
        # Data is not code: nothing here reads pickle.
        "accept_content": ["json", "msgpack"],
        # What control commands and their answers are written in, too: other applications on the
        # same broker, and Flower, read JSON. Our own producers write bodies in msgpack themselves.
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "task_queues": [Queue(name, routing_key=name) for name in queues],
        "task_default_queue": prefill,
        "task_routes": {PREFILL: {"queue": prefill}, DECODE: {"queue": queues[-1]}},
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


def _redis_configuration(settings: Settings) -> dict[str, Any]:
    timeout_s = settings.cluster.redis_timeout_s
    tls = address_of(settings).tls or None
    return {
        # Without these, Kombu takes rediss:// for an encrypted connection to anybody.
        "broker_use_ssl": tls,
        "redis_backend_use_ssl": tls,
        "broker_transport": REDIS_TRANSPORT,
        "worker_consumer": "inferq.worker.consumer:Consumer",
        # A worker outlives every outage; what it runs goes on meanwhile.
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "broker_transport_options": {"socket_connect_timeout": timeout_s},
        "redis_socket_connect_timeout": timeout_s,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
    }
