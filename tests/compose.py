"""Compose files as Docker would read them: merged, with variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
BASE = "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def load(names: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    """What the files say together."""
    merged: dict[str, Any] = {}
    for name in names:
        merged = _merge(merged, _filled(YAML(typ="safe").load(ROOT / name), env))
    return merged


def _merge(below: Any, above: Any) -> Any:
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        both = {name: _merge(below[name], above[name]) for name in below if name in above}
        return {**below, **above, **both}
    return above


def _filled(value: Any, env: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _filled(inner, env) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, env) for inner in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, how, rest = match.groups()
        if env.get(name):
            return env[name]
        if how == ":?":
            raise KeyError(f"{name}: {rest}")
        return rest or ""

    return _VARIABLE.sub(fill, value)
