"""Schedulers: how requests reach nodes. ``scheduler_name`` picks one."""

from __future__ import annotations

from inferq.errors import SchedulerUnavailable, SettingsError
from inferq.schedulers.base import Counts, Scheduler
from inferq.schedulers.cluster import GlobalScheduler
from inferq.schedulers.local import LocalScheduler
from inferq.settings import Settings

__all__ = ["Counts", "Scheduler", "create_scheduler"]

_AVAILABLE = ("global", "local")


def create_scheduler(settings: Settings, node: str = "") -> Scheduler:
    """The scheduler that the settings name, not yet started.

    ``node``: the node whose own queue takes the requests (global); empty: any node.

    Raises:
        SchedulerUnavailable: this version does not have it.
        SettingsError: a node is named that the scheduler cannot reach.
    """
    if settings.scheduler_name == "global":
        return GlobalScheduler(settings, node)
    if node:
        raise SettingsError(
            f"node={node!r}: only with scheduler_name='global'; it is {settings.scheduler_name!r}",
            ["node"],
        )
    if settings.scheduler_name == "local":
        return LocalScheduler(settings)
    raise SchedulerUnavailable(
        f"scheduler_name={settings.scheduler_name!r}: not available in this version; "
        f"allowed are {', '.join(_AVAILABLE)}"
    )
