"""Which error of inferq is which status of HTTP. All have the same body."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from inferq import (
    DuplicateRequest,
    InferqError,
    InvalidRequest,
    QueueFull,
    RequestCancelled,
    RequestExpired,
    RequestFailed,
    SchedulerUnavailable,
)

#: The first that fits counts.
STATUS: tuple[tuple[type[InferqError], int], ...] = (
    (DuplicateRequest, 409),
    (InvalidRequest, 422),
    (QueueFull, 429),
    (SchedulerUnavailable, 503),
    (RequestCancelled, 409),
    (RequestExpired, 504),
    (RequestFailed, 502),
)
#: When to try again, seconds.
RETRY_AFTER = {429: "1", 503: "5"}
#: What a node finds wrong with a request, such as a prompt that is longer than its engine can hold.
OF_THE_REQUEST = ("invalid_request", "too_large")


def add_handlers(app: FastAPI) -> None:
    """Have the application answer with these."""
    app.add_exception_handler(InferqError, _answer)
    app.add_exception_handler(RequestValidationError, _answer_invalid)


def as_json(error: InferqError) -> dict[str, Any]:
    """A stable code, a sentence, and the field at fault if there is one."""
    code = error.error_code if isinstance(error, RequestFailed) else error.code
    said: dict[str, Any] = {"code": code, "message": str(error)}
    if isinstance(error, InvalidRequest):
        said["field"] = error.field
    return said


def status_of(error: InferqError) -> int:
    """The status of HTTP; 500 for what nobody expects."""
    if isinstance(error, RequestFailed) and error.error_code in OF_THE_REQUEST:
        return 422
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, InferqError)
    return _response(status_of(error), as_json(error))


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]  # never its input: it may be the whole prompt
    field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    message = f"{field}: {first['msg']}"
    return _response(422, {"code": "invalid_request", "message": message, "field": field})


def _response(status: int, error: dict[str, Any]) -> JSONResponse:
    retry = RETRY_AFTER.get(status)
    headers = {"Retry-After": retry} if retry else None
    return JSONResponse({"error": error}, status, headers)
