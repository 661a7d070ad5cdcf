"""The two phases of a request as Celery tasks."""

from __future__ import annotations

from celery import Celery

from inferq.tasks.base import InferenceTask
from inferq.tasks.decode import decode
from inferq.tasks.names import DECODE, PREFILL
from inferq.tasks.prefill import prefill

__all__ = ["DECODE", "PREFILL", "register_tasks"]


def register_tasks(app: Celery) -> None:
    """Give an application the tasks of inferq."""
    options = {"bind": True, "base": InferenceTask, "acks_late": True, "shared": False}
    app.task(prefill, name=PREFILL, **options)
    app.task(decode, name=DECODE, **options)
