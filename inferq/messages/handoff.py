"""The handoff from prefill to decode."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from inferq.errors import InvalidRequest
from inferq.messages.fields import RequestId, TokenId, as_tuple


class Handoff(BaseModel):
    """What a decode node needs to continue where a prefill node stopped.

    ``token_ids`` are the tokens already sampled (usually one; none in the concurrent family) and
    ``text`` their text; ``prompt_tokens`` is the length of the prompt. ``kv`` is the engine's own
    description of where the KV cache is, or where both sides meet; it never holds the cache
    itself. ``attempt``, ``node``, ``queue_s`` and ``prefill_s`` say when, where and how fast the
    prefill ran.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    request_id: RequestId
    family: Literal["sequential", "concurrent"] = "sequential"
    protocols: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=64)], ...],
        BeforeValidator(as_tuple),
        Field(max_length=8),
    ] = ()
    prompt_tokens: Annotated[int, Field(ge=1)]
    token_ids: Annotated[tuple[TokenId, ...], BeforeValidator(as_tuple)] = ()
    text: str = ""
    kv: dict[str, Any] = Field(default_factory=dict)
    attempt: Annotated[int, Field(ge=0)] = 0
    node: Annotated[str, StringConstraints(max_length=255)] = ""
    queue_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    prefill_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @classmethod
    def parse(cls, fields: Any) -> Handoff:
        """Build a handoff from a message.

        Raises:
            InvalidRequest: names the field at fault.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as exc:
            error = exc.errors(include_url=False, include_input=False, include_context=False)[0]
            raise InvalidRequest(
                ".".join(["handoff", *map(str, error["loc"])]), error["msg"]
            ) from None
