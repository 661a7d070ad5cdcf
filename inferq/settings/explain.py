"""Turns pydantic's complaints into sentences about settings."""

from __future__ import annotations

import re

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from inferq.errors import SettingsError

#: In an address.
_PASSWORD = re.compile(r"//[^/\s]*@")
#: Settings that are never printed; what is wrong with them is.
SECRETS = frozenset({"scheduler_password", "scheduler_url", "transfer.token", "openai.api_key"})


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
    hidden = _is_secret(name) or _PASSWORD.search(str(error["input"]))
    value = "(secret)" if hidden else repr(error["input"])[:200]
    return f"{name}={value}: {error['msg']}"


def _is_secret(name: str) -> bool:
    """Whether a setting is a secret, or a group that may hold one."""
    return any(secret == name or secret.startswith(f"{name}.") for secret in SECRETS)


def _siblings(error: ErrorDetails, model: type[BaseModel]) -> list[str]:
    for part in error["loc"][:-1]:
        inner = model.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return sorted(model.model_fields)
