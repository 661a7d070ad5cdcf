"""Schedulers: how requests reach nodes. ``scheduler_name`` picks one."""

from __future__ import annotations

from inferq.errors import SchedulerUnavailable
from inferq.schedulers.base import Counts, Scheduler
from inferq.schedulers.local import LocalScheduler
from inferq.settings import Settings

__all__ = ["Counts", "Scheduler", "create_scheduler"]

_SCHEDULERS: dict[str, type[Scheduler]] = {"local": LocalScheduler}


def create_scheduler(settings: Settings) -> Scheduler:
    """The scheduler that the settings name, not yet started.

    Raises:
        SchedulerUnavailable: this version does not have it.
    """
    scheduler = _SCHEDULERS.get(settings.scheduler_name)
    if scheduler is None:
        raise SchedulerUnavailable(
            f"scheduler_name={settings.scheduler_name!r}: not available in this version; "
            f"allowed are {', '.join(sorted(_SCHEDULERS))}"
        )
    return scheduler(settings)
