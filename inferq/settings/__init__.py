"""The settings tree: one frozen object, read once at start and passed down.

Sources, first one wins: constructor, environment (``INFERQ_SCHEDULER_TTL``; nested groups with
two underscores, ``INFERQ_LLAMACPP__MODEL``), ``.env``, ``inferq.toml``, defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SourceError,
)

from inferq.settings.cluster import ClusterSettings, Role
from inferq.settings.engine import LlamaCppSettings, NoopSettings, SimulatedSettings
from inferq.settings.explain import explain, unreadable
from inferq.settings.monitoring import MonitoringSettings
from inferq.settings.node import AdmissionSettings, LimitSettings
from inferq.settings.openai import OpenAISettings
from inferq.settings.placement import PlacementSettings
from inferq.settings.redis import RedisSettings
from inferq.settings.scheduler import SchedulerSettings
from inferq.settings.transfer import TransferSettings

__all__ = [
    "AdmissionSettings",
    "ClusterSettings",
    "LimitSettings",
    "LlamaCppSettings",
    "MonitoringSettings",
    "NoopSettings",
    "OpenAISettings",
    "PlacementSettings",
    "RedisSettings",
    "Role",
    "Settings",
    "SimulatedSettings",
    "TransferSettings",
]

ENV_PREFIX = "INFERQ_"
EngineName = Annotated[
    str, StringConstraints(pattern=r"^([a-z][a-z0-9_]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")
]


class _OwnDotEnv(DotEnvSettingsSource):
    """A ``.env`` is shared with other programs: only names with our prefix are ours to judge."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        prefix = ENV_PREFIX.lower()
        return {k: v for k, v in super()._load_env_vars().items() if k.lower().startswith(prefix)}


class Settings(SchedulerSettings, BaseSettings):
    """All settings of inferq.

    Raises:
        SettingsError: a setting is unknown or wrong; the message names it, its value (never
            a secret one) and what is allowed.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_file_encoding="utf-8",
        toml_file="inferq.toml",
        hide_input_in_errors=True,
        validate_default=False,
    )

    engine: EngineName = Field(
        "simulated", description="simulated, llamacpp, openai, noop, or `package.module:Class`"
    )
    role: Role = Field("mixed", description="What a node does: mixed, prefill or decode")
    simulated: SimulatedSettings = Field(default_factory=SimulatedSettings)
    llamacpp: LlamaCppSettings = Field(default_factory=LlamaCppSettings)
    openai: OpenAISettings = Field(default_factory=OpenAISettings)
    noop: NoopSettings = Field(default_factory=NoopSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    admission: AdmissionSettings = Field(default_factory=AdmissionSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    transfer: TransferSettings = Field(default_factory=TransferSettings)
    placement: PlacementSettings = Field(default_factory=PlacementSettings)
    monitoring: MonitoringSettings = Field(default_factory=MonitoringSettings)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as exc:
            raise explain(exc, type(self)) from None
        except (SourceError, ValueError) as exc:
            raise unreadable(exc) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Constructor, environment, ``.env``, ``inferq.toml``."""
        del dotenv_settings, file_secret_settings
        toml = TomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, _OwnDotEnv(settings_cls), toml
