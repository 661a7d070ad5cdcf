"""What travels: Request, Output, Handoff.

A request is checked where it enters (producer) and again where it arrives (node), because
any producer that speaks Celery can put a message into the queue. Outputs are many and small:
they are named tuples, which msgpack and JSON carry as plain arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from inferq.errors import (
    InvalidRequest,
    RequestCancelled,
    RequestEnded,
    RequestExpired,
    RequestFailed,
)

MAX_TOKEN_ID = 2**31 - 1
MAX_OUTPUT_TOKENS = 1_000_000
MAX_STOP_STRINGS = 16
PRIORITIES = 10

RequestId = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Text = Annotated[str, StringConstraints(min_length=1)]
JsonScalar = str | int | float | bool | None


def _as_tuple(value: Any) -> Any:
    """JSON and msgpack have no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: Any) -> Any:
    """One stop string may be given without a list around it."""
    return (value,) if isinstance(value, str) else _as_tuple(value)


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


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
        tuple[TokenId, ...] | None, BeforeValidator(_as_tuple), Field(min_length=1)
    ] = None
    messages: Annotated[
        tuple[ChatMessage, ...] | None, BeforeValidator(_as_tuple), Field(min_length=1)
    ] = None

    max_tokens: Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)] = 128
    min_tokens: Annotated[int, Field(ge=0, le=MAX_OUTPUT_TOKENS)] = 0
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    stop: Annotated[
        tuple[Text, ...], BeforeValidator(_one_or_many), Field(max_length=MAX_STOP_STRINGS)
    ] = ()
    stop_token_ids: Annotated[
        tuple[TokenId, ...], BeforeValidator(_as_tuple), Field(max_length=1024)
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


class Timings(NamedTuple):
    """Where the time of a request went on its node, in seconds."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


class ErrorInfo(NamedTuple):
    """An error as it travels: a stable code and a sentence."""

    code: str
    message: str


class Output(NamedTuple):
    """A piece of an answer.

    ``index`` is the position of its first token in the answer, ``attempt`` counts the times
    the request was started (from 0). The last output has ``finished`` set, with either a
    ``finish_reason`` of stop or length, or an ``error``.
    """

    request_id: str
    attempt: int = 0
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    token_ids: tuple[int, ...] = ()
    text: str = ""
    finished: bool = False
    finish_reason: str | None = None
    error: ErrorInfo | None = None
    timings: Timings | None = None

    def to_wire(self) -> tuple[Any, ...]:
        """A tuple of plain values, for JSON or msgpack."""
        return tuple(self)

    @classmethod
    def from_wire(cls, raw: Sequence[Any]) -> Output:
        """Read what ``to_wire`` wrote, treating it as hostile.

        Raises:
            ValueError: what is wrong with it.
        """
        if not isinstance(raw, (list, tuple)) or len(raw) != len(cls._fields):
            raise ValueError(f"an output has {len(cls._fields)} fields")
        request_id, attempt, index, token_ids, text, finished, reason, error, timings = raw
        if not isinstance(request_id, str) or not isinstance(text, str):
            raise ValueError("request_id and text are strings")
        if not isinstance(token_ids, (list, tuple)):
            raise ValueError("token_ids is an array")
        numbers = (attempt, index, *token_ids)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("attempt, index and token_ids are integers from 0 up")
        if type(finished) is not bool:
            raise ValueError("finished is a boolean")
        return cls(
            request_id,
            attempt,
            index,
            tuple(token_ids),
            text,
            finished,
            None if reason is None else FinishReason(reason).value,
            None if error is None else _error_from_wire(error),
            None if timings is None else _timings_from_wire(timings),
        )


def _error_from_wire(raw: Any) -> ErrorInfo:
    if not isinstance(raw, (list, tuple)) or [type(part) for part in raw] != [str, str]:
        raise ValueError("error is a code and a message")
    return ErrorInfo(*raw)


def _timings_from_wire(raw: Any) -> Timings:
    if not isinstance(raw, (list, tuple)) or len(raw) != len(Timings._fields):
        raise ValueError(f"timings are {len(Timings._fields)} numbers")
    if not all(type(part) in (int, float) for part in raw):
        raise ValueError("timings are numbers")
    try:
        timings = Timings(*(float(part) for part in raw))
    except OverflowError:
        raise ValueError("timings are finite numbers") from None
    if not all(math.isfinite(part) for part in timings):
        raise ValueError("timings are finite numbers")
    return timings


def error_output(
    request_id: str, reason: FinishReason, code: str, message: str, *, attempt: int = 0
) -> Output:
    """The last output of a request that ended without an answer."""
    return Output(
        request_id,
        attempt=attempt,
        finished=True,
        finish_reason=reason.value,
        error=ErrorInfo(code, message),
    )


def ended_error(output: Output) -> RequestEnded | None:
    """The exception that tells a caller of ``output``, or None when it is no error."""
    if output.error is None:
        return None
    if output.finish_reason == FinishReason.CANCELLED:
        return RequestCancelled(output.request_id, output.error.message)
    if output.finish_reason == FinishReason.EXPIRED:
        return RequestExpired(output.request_id, output.error.message)
    return RequestFailed(output.request_id, output.error.message, output.error.code)


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
    token_ids: Annotated[tuple[TokenId, ...], BeforeValidator(_as_tuple)] = ()
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
