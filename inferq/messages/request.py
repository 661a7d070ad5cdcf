"""A request, as its producer writes it and its node reads it.

It is checked where it enters and again where it arrives, because any producer that speaks
Celery can put a message into the queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from inferq.errors import InvalidRequest
from inferq.messages.fields import (
    MAX_METADATA_CHARACTERS,
    MAX_OUTPUT_TOKENS,
    MAX_STOP_STRINGS,
    MAX_TOKEN_ID,
    MAX_TURNS,
    PRIORITIES,
    JsonScalar,
    RequestId,
    StopText,
    Text,
    TokenId,
    as_tuple,
    one_or_many,
)


class ChatMessage(BaseModel):
    """One turn of a conversation, put into words by the model's own chat template."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    role: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    content: str


class Request(BaseModel):
    """One request for text: a prompt, how to sample, and how urgent it is.

    Exactly one of ``prompt`` (text as it is), ``prompt_token_ids`` and ``messages`` (a
    conversation) is given. ``deadline`` is a UNIX time in seconds. ``priority`` 0 goes
    first, 9 last. ``temperature`` 0 is greedy. ``top_k`` 0 keeps all tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    request_id: RequestId
    prompt: Text | None = None
    prompt_token_ids: Annotated[
        Annotated[tuple[TokenId, ...], Field(min_length=1)] | None, BeforeValidator(as_tuple)
    ] = None
    messages: Annotated[
        Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_TURNS)] | None,
        BeforeValidator(as_tuple),
    ] = None

    max_tokens: Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)] = 128
    min_tokens: Annotated[int, Field(ge=0, le=MAX_OUTPUT_TOKENS)] = 0
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    stop: Annotated[
        tuple[StopText, ...], BeforeValidator(one_or_many), Field(max_length=MAX_STOP_STRINGS)
    ] = ()
    stop_token_ids: Annotated[
        tuple[TokenId, ...], BeforeValidator(as_tuple), Field(max_length=1024)
    ] = ()
    ignore_eos: bool = False

    priority: Annotated[int, Field(ge=0, lt=PRIORITIES)] = 0
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    metadata: Annotated[dict[str, JsonScalar], Field(max_length=64)] = Field(default_factory=dict)

    FIELDS: ClassVar[frozenset[str]]

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        given = [
            n for n in ("prompt", "prompt_token_ids", "messages") if getattr(self, n) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                "prompt: give exactly one of prompt, prompt_token_ids and messages; "
                f"got {' and '.join(given) if given else 'none'}"
            )
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens: {self.min_tokens} is more than max_tokens, {self.max_tokens}"
            )
        size = sum(
            len(text) for pair in self.metadata.items() for text in pair if isinstance(text, str)
        )
        if size > MAX_METADATA_CHARACTERS:
            raise ValueError(
                f"metadata: {size} characters in all; allowed are {MAX_METADATA_CHARACTERS}"
            )
        return self

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Request:
        """Build a request from a caller's or a message's fields.

        Raises:
            InvalidRequest: names the first field at fault and what is allowed.
        """
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as exc:
            raise _translate(exc) from None

    def to_wire(self) -> dict[str, Any]:
        """The fields that were given: the keyword arguments of the task."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        del given["request_id"]
        if self.messages is not None:
            given["messages"] = [message.model_dump() for message in self.messages]
        return given


Request.FIELDS = frozenset(Request.model_fields)


def _translate(exc: ValidationError) -> InvalidRequest:
    error = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    where = [str(part) for part in error["loc"]]
    if not where:  # raised by _one_prompt, which names the field itself
        field, _, reason = error["msg"].removeprefix("Value error, ").partition(": ")
        return InvalidRequest(field, reason)
    if error["type"] == "extra_forbidden":
        allowed = Request.FIELDS if len(where) == 1 else ChatMessage.model_fields
        return InvalidRequest(".".join(where), f"unknown; allowed are {', '.join(sorted(allowed))}")
    if where[0] == "metadata" and len(where) == 3:  # pydantic names the first type it tried
        return InvalidRequest(".".join(where[:2]), "is no string, number, boolean or null")
    return InvalidRequest(".".join(where), error["msg"])
