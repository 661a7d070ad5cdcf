"""The options that inferq adds to ``celery worker``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click
from celery import Celery

from inferq.errors import SettingsError
from inferq.settings import Settings
from inferq.settings.explain import SECRETS

#: Option, as Celery passes it on, and the setting it stands for.
_SETTINGS = {
    "inferq_topic": "scheduler_topic",
    "inferq_role": "role",
    "inferq_engine": "engine",
    "inferq_model": "llamacpp.model",
    "inferq_drain_timeout": "cluster.drain_timeout_s",
}
_PAIRS = "inferq_setting"
#: In an address.
_PASSWORD = re.compile(r"//[^/@]*:[^/@]+@")


def add_options(app: Celery) -> None:
    """Show our options in ``--help``, and accept them."""
    for option in (
        _option("--topic", "inferq_topic", "Nodes exchange work within one topic."),
        _option("--role", "inferq_role", "mixed, prefill or decode."),
        _option(
            "--engine", "inferq_engine", "llamacpp, simulated, noop or package.module:factory."
        ),
        _option("--model", "inferq_model", "A .gguf file for llamacpp; none: the packaged model."),
        _option(
            "--drain-timeout", "inferq_drain_timeout", "On SIGTERM, finish for so many seconds."
        ),
        click.Option(
            ["--setting", _PAIRS],
            multiple=True,
            metavar="NAME=VALUE",
            help="Any other setting, such as cluster.lease_ttl_s=5; may be repeated.",
        ),
    ):
        app.user_options["worker"].add(option)


def settings_of(base: Settings, options: dict[str, Any]) -> Settings:
    """The settings with the options in them, which are taken out of ``options``.

    Raises:
        SettingsError: an option's value is wrong.
    """
    values = base.model_dump()
    changed = False
    given = {name: options.pop(option, None) for option, name in _SETTINGS.items()}
    for pair in options.pop(_PAIRS, None) or ():
        name, equals, value = str(pair).partition("=")
        if not equals:
            raise SettingsError(f"--setting {pair!r}: is no NAME=VALUE", [name])
        _refuse_secret(name, value)
        given[name] = value
    for name, value in given.items():
        if value is not None:
            _put(values, name, value)
            changed = True
    return Settings(**values) if changed else base


def _refuse_secret(name: str, value: str) -> None:
    """Every user of the machine sees command lines."""
    is_harmless = name == "scheduler_url" and not _PASSWORD.search(value)
    if name in SECRETS and not is_harmless:
        raise SettingsError(
            f"--setting {name}: a secret does not belong on a command line; give it by "
            "environment or as a file (redis.password_file, transfer.token_file, "
            "openai.api_key_file)",
            [name],
        )


def _option(flag: str, name: str, text: str) -> click.Option:
    return click.Option([flag, name], help=text, metavar="X")


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        inner = values.get(group)
        if not isinstance(inner, Mapping):
            raise SettingsError(f"{name}: unknown setting", [name])
        values = values.setdefault(group, {})
    values[last] = value
