"""Types of fields that more than one message has."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

MAX_TOKEN_ID = 2**31 - 1
MAX_OUTPUT_TOKENS = 1_000_000
MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 1024
MAX_TURNS = 10_000
#: Names and values of a request's metadata together.
MAX_METADATA_CHARACTERS = 16_384
PRIORITIES = 10

RequestId = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Text = Annotated[str, StringConstraints(min_length=1)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARACTERS)]
JsonScalar = str | int | float | bool | None


def as_tuple(value: Any) -> Any:
    """JSON and msgpack have no tuples."""
    return tuple(value) if isinstance(value, list) else value


def one_or_many(value: Any) -> Any:
    """One stop string may be given without a list around it."""
    return (value,) if isinstance(value, str) else as_tuple(value)
