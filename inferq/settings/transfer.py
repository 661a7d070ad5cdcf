"""The settings of KV caches on their way from node to node."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from inferq.settings.engine import Options
from inferq.settings.files import read_secret

_HOST = r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+)"


class TransferSettings(Options):
    """How a prefill node keeps KV caches, and how decode nodes get them (splitwise)."""

    listen: str = Field(
        "",
        pattern=rf"^$|^{_HOST}:[0-9]{{1,5}}$",
        description="host:port that serves KV caches to other hosts; port 0: any; empty: no TCP",
    )
    advertise: str = Field(
        "",
        pattern=rf"^$|^{_HOST}(:[0-9]{{1,5}})?$",
        description="host or host:port that others connect to; empty: where it listens",
    )
    token: str = Field(
        "",
        repr=False,
        description="Secret that all nodes of a topic share, never printed; a must with TCP",
    )
    token_file: str | None = Field(
        None, min_length=1, description="File with the token, read at start, instead of `token`"
    )
    timeout_s: float = Field(
        5.0, ge=0.05, le=600, description="A peer that is silent for this long is away, seconds"
    )
    keep_s: float = Field(
        120.0, ge=0.1, le=86_400, description="A KV cache that nobody fetched is freed, seconds"
    )
    max_bytes: int = Field(
        2_147_483_648,
        ge=1,
        description="Most bytes of KV caches kept; from half of it on no prefill begins",
    )
    max_caches: int = Field(
        512, ge=2, description="Most KV caches kept, a descriptor each; from half of it as above"
    )
    max_connections: int = Field(
        32, ge=1, le=1024, description="Most connections that are served, or fetched by, at once"
    )

    @model_validator(mode="after")
    def _has_one_token(self) -> Self:
        if self.token_file is not None:
            if self.token:
                raise ValueError("token_file: token is given as well")
            read_secret(self.token_file)
        return self

    @property
    def secret(self) -> str:
        """The token, from where it is; empty: there is none. Raises ValueError."""
        return self.token if self.token_file is None else read_secret(self.token_file)
