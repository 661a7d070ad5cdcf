"""Metrics for Prometheus: of a node from its worker, of a whole topic from Flower.

Both need the package prometheus-client: ``pip install "inferq[metrics]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferq.errors import SettingsError
from inferq.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from inferq.monitoring.metrics.cluster import ClusterCollector
    from inferq.monitoring.metrics.endpoint import Endpoint

__all__ = ["open_endpoint", "register_cluster_collector"]


def open_endpoint(settings: Settings, node: str) -> Endpoint | None:
    """Take the port of this worker's metrics; None when the settings name none.

    Raises:
        SettingsError: the port is taken, the package is missing, or there is no worker process.
    """
    options = settings.monitoring
    if not options.metrics_port:
        return None
    name = "monitoring.metrics_port"
    if settings.scheduler_name == "local":
        raise SettingsError(
            f"{name}={options.metrics_port}: only worker processes serve metrics (global, "
            "splitwise); with scheduler_name='local' it must be 0",
            [name],
        )
    _check_package(f"{name}={options.metrics_port}")
    from inferq.monitoring.metrics.endpoint import Endpoint  # noqa: PLC0415 - an extra

    return Endpoint(settings, node)


def register_cluster_collector(
    settings: Settings, registry: CollectorRegistry | None = None
) -> ClusterCollector:
    """Show a topic's nodes and queues, as Redis knows them, with the metrics of this process.

    ``registry``: none: the default one, which Flower's /metrics shows. It holds one such
    collector; a second call replaces the first. Nothing is read before somebody asks.

    Raises:
        SettingsError: the package is missing.
    """
    _check_package("metrics of the cluster")
    from inferq.monitoring.metrics.cluster import register  # noqa: PLC0415 - an extra

    return register(settings, registry)


def _check_package(what: str) -> None:
    try:
        import prometheus_client  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise SettingsError(
            f"{what}: the package prometheus-client is missing; "
            'pip install "inferq[metrics]" brings it'
        ) from None
