"""The application that ``celery -A inferq`` finds. Its settings: environment, files, options."""

from __future__ import annotations

from functools import cache
from typing import Any

from inferq.app import InferqApp, create_cluster_app
from inferq.errors import SettingsError
from inferq.settings import Settings

__all__ = ["make_app"]


@cache
def make_app() -> InferqApp:
    """The application, made when Celery first asks for it.

    Raises:
        SettingsError: a setting is wrong, or the scheduler has no worker processes.
    """
    settings = Settings()
    if "scheduler_name" not in settings.model_fields_set:
        settings = Settings(scheduler_name="global")
    if settings.scheduler_name == "local":
        raise SettingsError(
            "scheduler_name='local': it runs inside its client; a worker process serves global "
            "or splitwise",
            ["scheduler_name"],
        )
    return create_cluster_app(settings)


def __getattr__(name: str) -> Any:
    # Nothing reads the environment at import.
    if name == "app":
        return make_app()
    raise AttributeError(name)
