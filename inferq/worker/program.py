"""``celery worker`` as inferq runs it."""

from __future__ import annotations

import gc
from typing import Any

import click
from celery.apps.worker import Worker
from celery.exceptions import ImproperlyConfigured

from inferq.cluster.address import kombu_url
from inferq.errors import SettingsError
from inferq.settings import Settings
from inferq.worker.options import settings_of
from inferq.worker.roles import check_role

#: New containers that make the youngest generation worth a collection; Python's default is 700.
COLLECT_AFTER = 20_000


class Program(Worker):  # type: ignore[misc]
    """Celery's worker, configured by inferq's settings and options."""

    def __init__(self, app: Any = None, hostname: str | None = None, **options: Any) -> None:
        app = app or self.app
        try:
            app.configure(settings_of(app.settings, options))
            refuse(options)
            check(app)
            prepare(app.settings, options)
            super().__init__(app=app, hostname=hostname, **options)
        except (SettingsError, ImproperlyConfigured) as exc:
            raise click.ClickException(str(exc)) from None

    def on_consumer_ready(self, consumer: Any) -> None:
        """Everything is loaded; what comes now are requests."""
        calm_collector()
        super().on_consumer_ready(consumer)


def check(app: Any) -> None:
    """What the application was given elsewhere must go with the settings.

    Raises:
        ImproperlyConfigured, SettingsError: names what does not.
    """
    settings = app.settings
    if settings.scheduler_name != "local" and app.conf.broker_url != kombu_url(settings):
        raise ImproperlyConfigured(
            "-b, broker_url: inferq's settings say where Redis is (INFERQ_SCHEDULER_URL)"
        )
    check_role(settings.scheduler_name, settings.role)


def prepare(settings: Settings, options: dict[str, Any]) -> None:
    """Leave out what costs every worker a share of all others."""
    if settings.scheduler_name != "local":
        # Nodes know each other through their leases. Gossip would have every worker read the
        # heartbeats of all others, mingle would wait for their answers at start.
        options |= {"without_gossip": True, "without_mingle": True}


def calm_collector() -> None:
    """Have the garbage collector leave alone what lives as long as the process.

    With Python's defaults it walks through modules and classes at the rate of requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


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
