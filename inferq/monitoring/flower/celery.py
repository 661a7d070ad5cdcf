"""The application that ``celery -A inferq.monitoring.flower flower`` finds."""

from __future__ import annotations

from functools import cache
from typing import Any

from inferq import celery
from inferq.app import InferqApp, create_cluster_app
from inferq.cluster.address import kombu_url
from inferq.settings import Settings
from inferq.transport import REDIS_SCHEME

__all__ = ["make_app"]


@cache
def make_app() -> InferqApp:
    """The application for Flower; Flower has our pages from then on.

    Raises:
        SettingsError: a setting is wrong, or the scheduler has no worker processes.
        ImproperlyConfigured: Flower is missing, or not the one that our pages were made for.
    """
    # Producers and nodes do without Flower and Tornado.
    from inferq.monitoring.flower.plugin import install  # noqa: PLC0415

    settings = celery.make_app().settings
    install(settings)
    return create_flower_app(settings)


def create_flower_app(settings: Settings) -> InferqApp:
    """The application of nodes and producers, on the transport whose name Flower knows.

    Flower finds the lengths of queues by the scheme of the broker's address, and an application
    with a transport of its own has none that it understands. Only workers need ours.
    """
    app = create_cluster_app(settings)
    url = kombu_url(settings)
    if url.startswith(REDIS_SCHEME):
        url = f"redis{url.removeprefix(REDIS_SCHEME)}"
    app.conf.update(broker_url=url, broker_transport=None)
    with app.connection() as connection:
        # Flower reads how to do TLS from here, and not from the address as everybody else.
        app.conf.broker_use_ssl = connection.ssl or None
    return app


def __getattr__(name: str) -> Any:
    # Nothing reads the environment at import.
    if name == "app":
        return make_app()
    raise AttributeError(name)
