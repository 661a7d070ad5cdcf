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

    ``token_ids`` are the tokens already sampled (usually one) and ``text`` their text;
    ``prompt_tokens`` is the length of the prompt. ``kv`` is the engine's own description of
    where the KV cache is, reachable by ``protocol``. It never holds the cache itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    request_id: RequestId
    family: Literal["sequential", "concurrent"] = "sequential"
    protocol: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    prompt_tokens: Annotated[int, Field(ge=1)]
    token_ids: Annotated[tuple[TokenId, ...], BeforeValidator(as_tuple)] = ()
    text: str = ""
    kv: dict[str, Any] = Field(default_factory=dict)

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
