"""Every error that inferq raises on purpose.

::

    InferqError
    ├── SettingsError            a setting is unknown or has a wrong value
    ├── SchedulerUnavailable     the chosen ``scheduler_name`` cannot be used
    ├── ClientClosed             the client was used before start or after close
    ├── UnknownRequest           no live request has this id
    ├── QueueFull                the scheduler holds as many requests as it may
    ├── InvalidRequest           a field of the request is wrong
    │   ├── DuplicateRequest     the id belongs to a live request
    │   └── RequestTooLarge      no amount of waiting would make it fit
    ├── RequestEnded             the request ended without an answer
    │   ├── RequestFailed        ... because something went wrong
    │   ├── RequestCancelled     ... because somebody asked for it
    │   └── RequestExpired       ... because its time was over
    └── EngineError              the engine failed
        ├── EngineStartError     ... before it served anything
        ├── EngineStepError      ... while it computed a batch
        └── KvLost               ... to get a KV cache that another node has computed

Errors of Celery, Kombu, pydantic and the engines are translated once, where they enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class InferqError(Exception):
    """Base of all errors of inferq.

    ``code`` is the stable, machine-readable name that travels in an output's error.
    """

    code: ClassVar[str] = "internal"

    def __reduce__(self) -> tuple[Any, ...]:
        # Celery passes on only exceptions that survive a copy; the default one calls
        # __init__ with the finished message, which most of these do not take.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[InferqError], args: tuple[Any, ...], state: dict[str, Any]) -> InferqError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class SettingsError(InferqError, ValueError):
    """Raised at start when a setting is unknown or has a wrong value.

    ``names`` holds the dotted names of the settings at fault.
    """

    code = "settings"

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)


class SchedulerUnavailable(InferqError):
    """Raised when the scheduler that the settings name cannot be used (now, or at all)."""

    code = "scheduler_unavailable"


class ClientClosed(InferqError):
    """Raised when a client is used outside of its context manager."""

    code = "client_closed"


class UnknownRequest(InferqError, KeyError):
    """Raised when no live request has the given id."""

    code = "unknown_request"

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id

    def __str__(self) -> str:
        return f"request_id {self.request_id!r}: no live request has this id"


class QueueFull(InferqError):
    """Raised when a put exceeds a bound: ``setting`` names it, ``max_size`` is its value.

    ``rejected`` holds the ids that did not fit. Requests of the same put that did fit are
    not affected; ``accepted`` holds their ids.
    """

    code = "queue_full"

    def __init__(
        self,
        max_size: int,
        rejected: Sequence[str],
        accepted: Sequence[str] = (),
        setting: str = "scheduler_max_size",
    ) -> None:
        super().__init__(
            f"{setting} is {max_size}: {len(rejected)} of "
            f"{len(rejected) + len(accepted)} requests do not fit ({', '.join(rejected[:3])}"
            f"{', ...' if len(rejected) > 3 else ''})"
        )
        self.setting = setting
        self.max_size = max_size
        self.rejected = tuple(rejected)
        self.accepted = tuple(accepted)


class InvalidRequest(InferqError, ValueError):
    """Raised when a field of a request is wrong; ``field`` names it."""

    code = "invalid_request"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class DuplicateRequest(InvalidRequest):
    """Raised when the id of a new request belongs to a live one."""

    code = "duplicate_request"

    def __init__(self, request_id: str) -> None:
        super().__init__("request_id", f"{request_id!r} belongs to a request that has not ended")
        self.request_id = request_id


class RequestTooLarge(InvalidRequest):
    """Raised when a request can never fit, however long it waits."""

    code = "too_large"


class RequestEnded(InferqError):
    """Base of the ends of a request that are not an answer."""

    def __init__(self, request_id: str, message: str) -> None:
        super().__init__(f"request {request_id}: {message}")
        self.request_id = request_id
        self.message = message


class RequestFailed(RequestEnded):
    """The request failed; ``error_code`` says how, in one word."""

    code = "failed"

    def __init__(self, request_id: str, message: str, error_code: str = "internal") -> None:
        super().__init__(request_id, f"{message} [{error_code}]")
        self.error_code = error_code


class RequestCancelled(RequestEnded):
    """The request was cancelled."""

    code = "cancelled"


class RequestExpired(RequestEnded):
    """The request outlived ``scheduler_ttl`` or its own deadline."""

    code = "expired"


class EngineError(InferqError):
    """The engine failed."""

    code = "engine_error"


class EngineStartError(EngineError):
    """Raised when an engine cannot start: its model is missing, broken or not supported."""

    code = "engine_start"


class EngineStepError(EngineError):
    """Raised for the requests of a batch that the engine could not compute."""

    code = "engine_step"


class KvLost(EngineError):
    """Raised when the KV cache of a handoff cannot be had any more."""

    code = "kv_lost"
