"""What the server refused, in our words."""

from __future__ import annotations

import json
import re
from typing import Any

from inferq.errors import EngineError, InvalidRequest, RequestTooLarge
from inferq.messages import Request

#: Of what a server says, this much is passed on, characters.
MAX_MESSAGE = 300
#: How servers say that a request can never fit. None of them has a code for it that all share.
_TOO_LARGE = re.compile(
    r"context.?(length|size|window)|max(imum)?_?.?(model|context|input)?_?.?len"
    r"|too (long|large)|longer than|exceed",
    re.IGNORECASE,
)
#: Names of fields that servers use for ours.
_FIELDS = {"input_ids": "prompt_token_ids", "max_completion_tokens": "max_tokens"}


class Refused(EngineError):
    """Raised when the server did not take a request for a reason that is its own; ``status``."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def refusal(status: int, body: bytes) -> EngineError | InvalidRequest:
    """The error for an HTTP status that is not 200."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        event = {"message": body.decode(errors="replace")}
    said = message_of(event)
    if status == 413 or (status in (400, 422) and _TOO_LARGE.search(f"{_type(event)} {said}")):
        return RequestTooLarge("prompt", f"the server refuses it: {said}")
    if status in (400, 422):
        return InvalidRequest(_field(event), f"the server refuses it: {said}")
    if status in (401, 403):
        return Refused(f"the server does not accept the API key (status {status})", status)
    return Refused(f"the server answers with status {status}: {said}", status)


def message_of(event: Any) -> str:
    """What a server's error says, bounded and on one line."""
    for name in ("error", "message", "detail", "msg"):
        if isinstance(event, dict) and event.get(name):
            return message_of(event[name])
    text = event if isinstance(event, str) else json.dumps(event)
    return " ".join(text.split())[:MAX_MESSAGE] or "nothing"


def _error(event: Any) -> dict[str, Any]:
    inner = event.get("error") if isinstance(event, dict) else None
    error = inner if isinstance(inner, dict) else event
    return error if isinstance(error, dict) else {}


def _type(event: Any) -> str:
    return str(_error(event).get("type", ""))


def _field(event: Any) -> str:
    named = str(_error(event).get("param") or "")
    named = _FIELDS.get(named, named)
    return named if named in Request.FIELDS else "request"
