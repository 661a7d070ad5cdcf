"""Turns pydantic's complaints into sentences about settings."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from inferq.errors import SettingsError

SECRETS = frozenset({"scheduler_password", "scheduler_url"})


def explain(exc: ValidationError, model: type[BaseModel]) -> SettingsError:
    """One error that names every setting at fault, its value and what is allowed."""
    details = exc.errors(include_url=False, include_context=False)
    names = [".".join(str(part) for part in error["loc"]) for error in details]
    lines = [_sentence(name, error, model) for name, error in zip(names, details, strict=True)]
    return SettingsError("; ".join(lines), names)


def unreadable(exc: Exception) -> SettingsError:
    """A source that cannot be read at all (bad TOML, bad JSON in a variable)."""
    return SettingsError(f"settings cannot be read: {exc}")


def _sentence(name: str, error: ErrorDetails, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        return f"{name}: unknown setting; allowed are {', '.join(_siblings(error, model))}"
    value = "(secret)" if name in SECRETS else repr(error["input"])[:200]
    return f"{name}={value}: {error['msg']}"


def _siblings(error: ErrorDetails, model: type[BaseModel]) -> list[str]:
    for part in error["loc"][:-1]:
        inner = model.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return sorted(model.model_fields)
