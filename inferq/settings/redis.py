"""The settings of the way into Redis: who asks, and how the connection is encrypted."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from inferq.settings.engine import Options
from inferq.settings.files import check_readable, read_secret


class RedisSettings(Options):
    """Who asks Redis, and how the connection is encrypted; where it is, `scheduler_...` says.

    The certificate of the server is checked, and that it is for the host that was asked for.
    """

    user: str = Field(
        "", pattern=r"^[!-~]*$", description="User of Redis' access lists; empty: the default user"
    )
    password_file: str | None = Field(
        None,
        min_length=1,
        description="File with the password, read at start, instead of `scheduler_password`",
    )
    tls: bool = Field(
        False, description="Encrypt; a scheduler_url that begins with rediss:// says so, too"
    )
    ca_file: str | None = Field(
        None,
        min_length=1,
        description="Certificates of the authority that the server's is from; none: the system's",
    )
    cert_file: str | None = Field(
        None, min_length=1, description="Certificate to show to the server"
    )
    key_file: str | None = Field(None, min_length=1, description="Private key of `cert_file`")

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _is_readable(cls, path: str | None) -> str | None:
        return None if path is None else check_readable(path)

    @field_validator("password_file")
    @classmethod
    def _is_secret(cls, path: str | None) -> str | None:
        if path is not None:
            read_secret(path)
        return path

    @model_validator(mode="after")
    def _key_goes_with_certificate(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self
