"""Writes docs/settings.md from the settings tree; with --check only says whether it is current."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from inferq.settings import ENV_PREFIX, Settings
from inferq.settings.scheduler import SchedulerSettings

TARGET = Path(__file__).parent.parent / "docs" / "settings.md"
HEAD = """# Settings

One frozen object, `inferq.Settings`, read once at start. Sources, the first one wins:

1. the constructor: `Settings(scheduler_ttl=60, llamacpp={"model": "my.gguf"})`
2. the environment: `INFERQ_SCHEDULER_TTL=60`, `INFERQ_LLAMACPP__MODEL=my.gguf`
3. a file `.env` in the working directory, with the same names
4. a file `inferq.toml` in the working directory: `scheduler_ttl = 60`, and `model = "my.gguf"`
   under `[llamacpp]`
5. the defaults below

An unknown name or a wrong value fails at start with the setting's name, the value and what is
allowed. Passwords are never printed. This page is generated: `scripts/check` compares it, and
`python scripts/settings_reference.py` writes it anew.
"""


def main() -> int:
    """Write or compare."""
    text = "\n".join(page())
    if "--check" in sys.argv[1:]:
        if TARGET.read_text() == text:
            return 0
        sys.stderr.write(f"{TARGET.name} is out of date: run scripts/settings_reference.py\n")
        return 1
    TARGET.write_text(text)
    return 0


def page() -> Iterator[str]:
    """The page, line by line."""
    yield HEAD
    yield "## Scheduler\n"
    yield from table(SchedulerSettings.model_fields, "")
    own = {
        n: f for n, f in Settings.model_fields.items() if n not in SchedulerSettings.model_fields
    }
    plain = {n: f for n, f in own.items() if not is_group(f)}
    yield "\n## Node\n"
    yield from table(plain, "")
    for name, field in own.items():
        group = field.annotation
        if is_group(field) and isinstance(group, type) and issubclass(group, BaseModel):
            yield f"\n## `{name}`\n"
            yield f"{(group.__doc__ or '').strip()}\n"
            yield from table(group.model_fields, f"{name}.")
    yield ""


def is_group(field: FieldInfo) -> bool:
    """Whether the setting is a nested group."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def table(fields: dict[str, FieldInfo], prefix: str) -> Iterator[str]:
    """A table of settings."""
    yield "| setting | environment | type | default | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for name, field in fields.items():
        variable = ENV_PREFIX + (prefix.replace(".", "__") + name).upper()
        yield (
            f"| `{prefix}{name}` | `{variable}` | {kind(field)} | {default(field)} "
            f"| {field.description} |"
        )


def kind(field: FieldInfo) -> str:
    """The type in words."""
    choices = [a for a in get_args(field.annotation) if isinstance(a, str)]
    if choices:
        return " or ".join(f"`{choice}`" for choice in choices)
    names = [t.__name__ for t in get_args(field.annotation) or (field.annotation,) if t]
    return " or ".join("none" if name == "NoneType" else name for name in names)


def default(field: FieldInfo) -> str:
    """The default as one would write it."""
    value: Any = field.default
    return "none" if value is None else f"`{value!r}`".replace("'", '"')


if __name__ == "__main__":
    sys.exit(main())
