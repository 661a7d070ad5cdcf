"""Schedulers: how requests reach nodes. ``scheduler_name`` picks one."""

from __future__ import annotations

from inferq.errors import SettingsError
from inferq.schedulers.base import Counts, Scheduler
from inferq.schedulers.cluster import ClusterScheduler
from inferq.schedulers.local import LocalScheduler
from inferq.settings import Settings

__all__ = ["Counts", "Scheduler", "create_scheduler"]


def create_scheduler(settings: Settings, node: str = "") -> Scheduler:
    """The scheduler that the settings name, not yet started.

    ``node``: the node whose own queue takes the requests (global, splitwise); empty: any node.

    Raises:
        SettingsError: a node is named that the scheduler cannot reach.
    """
    if settings.scheduler_name != "local":
        return ClusterScheduler(settings, node)
    if node:
        raise SettingsError(
            f"node={node!r}: only with scheduler_name global or splitwise; it is local",
            ["node"],
        )
    return LocalScheduler(settings)
