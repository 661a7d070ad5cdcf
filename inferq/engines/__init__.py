"""Engines: what computes the tokens. A name in the settings picks one."""

from __future__ import annotations

from importlib import import_module

from inferq.engines.base import Capacity, Chunk, Engine, Received
from inferq.errors import SettingsError
from inferq.settings import Settings

__all__ = ["Capacity", "Chunk", "Engine", "Received", "create_engine"]

_FACTORIES = {
    "simulated": "inferq.engines.simulated:create",
    "llamacpp": "inferq.engines.llamacpp.engine:create",
    "openai": "inferq.engines.openai:create",
    "noop": "inferq.engines.noop:NoopEngine",
}


def create_engine(settings: Settings) -> Engine:
    """The engine that ``settings.engine`` names, not yet started.

    Besides the built-in names, ``package.module:factory`` names any callable that takes the
    settings and returns an Engine.

    Raises:
        SettingsError: there is no such engine.
    """
    path = _FACTORIES.get(settings.engine, settings.engine)
    module_name, _, attribute = path.partition(":")
    try:
        factory = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as exc:
        raise SettingsError(
            f"engine={settings.engine!r}: {exc}; allowed are "
            f"{', '.join(sorted(_FACTORIES))} and package.module:factory",
            ["engine"],
        ) from exc
    engine = factory(settings)
    if not isinstance(engine, Engine):
        raise SettingsError(
            f"engine={settings.engine!r}: made a {type(engine).__name__}, not an Engine"
        )
    return engine
