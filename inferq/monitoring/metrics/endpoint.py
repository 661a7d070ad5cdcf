"""The port of a worker's metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from inferq.errors import SettingsError
from inferq.monitoring.metrics.node import NodeCollector
from inferq.monitoring.metrics.parts import Parts
from inferq.monitoring.metrics.server import MetricsServer
from inferq.settings import Settings


class Endpoint:
    """Takes the port at once, answers from ``start`` to ``stop``.

    Raises:
        SettingsError: the port cannot be had.
    """

    def __init__(self, settings: Settings, node: str) -> None:
        self._settings = settings
        self._node = node
        self._registry = CollectorRegistry(auto_describe=False)
        host, port = settings.monitoring.metrics_host, settings.monitoring.metrics_port
        try:
            self._server = MetricsServer(host, port, self._registry)
        except (OSError, OverflowError) as exc:
            name = "monitoring.metrics_port"
            raise SettingsError(
                f"{name}={port}: {host}:{port} cannot be listened on: {exc}. Each worker of a "
                f"host needs a port of its own (--setting {name}=...); 0: no metrics",
                [name],
            ) from None

    def start(self, parts: Callable[[], Parts]) -> None:
        """Answer from now on; ``parts`` says what there is to tell of."""
        self._registry.register(NodeCollector(self._settings, self._node, parts))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._server.start()

    def stop(self) -> None:
        """Answer who has asked, and end. A second call does nothing."""
        self._server.stop()
