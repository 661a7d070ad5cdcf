"""``celery worker`` as inferq runs it."""

from __future__ import annotations

from typing import Any

from celery.apps.worker import Worker
from celery.exceptions import ImproperlyConfigured

from inferq.worker.options import settings_of


class Program(Worker):  # type: ignore[misc]
    """Celery's worker, configured by inferq's settings and options."""

    def __init__(self, app: Any = None, hostname: str | None = None, **options: Any) -> None:
        app = app or self.app
        app.configure(settings_of(app.settings, options))
        refuse(options)
        if app.settings.scheduler_name != "local":
            # Nodes know each other through their leases. Gossip would have every worker read the
            # heartbeats of all others, mingle would wait for their answers at start.
            options |= {"without_gossip": True, "without_mingle": True}
        super().__init__(app=app, hostname=hostname, **options)


def refuse(options: dict[str, Any]) -> None:
    """Options of Celery that would take from inferq what it must decide itself.

    Raises:
        ImproperlyConfigured: names the option.
    """
    reasons = {
        "queues": ("-Q", "queues follow from --topic and --role"),
        "exclude_queues": ("-X", "queues follow from --topic and --role"),
        "autoscale": ("--autoscale", "the engine's room decides how many requests run"),
        "max_tasks_per_child": ("--max-tasks-per-child", "there are no child processes"),
        "max_memory_per_child": ("--max-memory-per-child", "there are no child processes"),
    }
    for name, (option, reason) in reasons.items():
        if options.get(name):
            raise ImproperlyConfigured(f"{option} cannot be used: {reason}")
