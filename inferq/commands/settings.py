"""``settings``: which hold, where they come from, and whether they go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click
from pydantic import BaseModel
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, InitSettingsSource

from inferq.commands.call import DONE, NO, Call, command
from inferq.commands.conflicts import conflicts
from inferq.commands.findings import print_findings
from inferq.commands.printing import print_json, print_table
from inferq.settings import Settings

SECRET = "(secret)"  # noqa: S105
_SOURCES = ("constructor", "environment", ".env", "inferq.toml")


class Setting(NamedTuple):
    """A setting, its value (never a secret one), and where that comes from."""

    name: str
    value: Any
    source: str


@click.group("settings")
def settings() -> None:
    """The settings that commands and nodes started here would follow."""


@command("show")
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
def show(call: Call, changed: bool) -> None:
    """All settings with their values and where these come from."""
    rows = [row for row in read(call.settings) if not changed or row.source != "default"]
    if call.as_json:
        print_json(rows)
    else:
        print_table(Setting._fields, rows, empty="all settings are at their defaults")


@command("check")
def check(call: Call) -> int:
    """Whether the settings are right and go together; see ``doctor`` for the rest."""
    found = list(conflicts(call.settings))
    if call.as_json:
        print_json(found)
    elif found:
        print_findings(found)
    else:
        click.echo("the settings are right")
    return NO if any(finding.level == "wrong" for finding in found) else DONE


for member in (show, check):
    settings.add_command(member)


def read(chosen: Settings) -> Iterator[Setting]:
    """Every setting of ``chosen``, which options may have changed."""
    values = chosen.model_dump(mode="json")
    named = Settings().model_dump(mode="json")
    given = dict(zip(_SOURCES, _by_source(), strict=True))
    for path, is_secret in _paths(Settings, ()):
        value = _at(values, path)
        source = next((name for name, said in given.items() if _has(said, path)), "default")
        if value != _at(named, path):
            # Nobody has named the scheduler: among nodes it is global.
            source = "default" if path == ("scheduler_name",) and source == "default" else "option"
        yield Setting(".".join(path), SECRET if is_secret and value else value, source)


def _by_source() -> tuple[Mapping[str, Any], ...]:
    """What each source says, the first one wins."""
    kinds = (InitSettingsSource(Settings, {}), EnvSettingsSource(Settings))
    dot_env = DotEnvSettingsSource(Settings)
    sources = Settings.settings_customise_sources(Settings, *kinds, dot_env, dot_env)
    return tuple(source() for source in sources)


def _paths(
    model: type[BaseModel], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], bool]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _paths(inner, (*above, name))
        else:
            yield (*above, name), not field.repr


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values[name]
    return values


def _has(said: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        if not isinstance(said, Mapping) or name not in said:
            return False
        said = said[name]
    return True
