"""The settings of the chosen engine, for this process and for others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class EngineOptions(Protocol):
    """What the arguments say of the engine."""

    @property
    def engine(self) -> str:
        """Its name."""

    @property
    def model(self) -> str | None:
        """The path of a .gguf file, for llamacpp."""

    @property
    def speedup(self) -> float:
        """Of the simulated engine."""


def engine_settings(options: EngineOptions) -> dict[str, Any]:
    """As ``Settings`` takes them; all else is as environment and files say."""
    own: dict[str, Any] = {}
    if options.engine == "simulated":
        own["speedup"] = options.speedup
    if options.model is not None:
        own["model"] = options.model
    return {"engine": options.engine, options.engine: own}


def node_settings(options: EngineOptions, slots: int) -> dict[str, Any]:
    """Those of one engine of several on this machine: one thread, ``slots`` requests at once."""
    values = engine_settings(options)
    values[options.engine]["max_slots"] = slots
    if options.engine == "llamacpp":
        values["llamacpp"]["threads"] = 1
    return values


def environment(values: Mapping[str, Any], prefix: str = "INFERQ_") -> dict[str, str]:
    """The same settings for another process."""
    env: dict[str, str] = {}
    for name, value in values.items():
        key = prefix + name.upper()
        if isinstance(value, Mapping):
            env |= environment(value, f"{key}__")
        else:
            env[key] = str(value)
    return env
