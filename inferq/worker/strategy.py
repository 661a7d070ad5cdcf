"""How the consumer meets a message: Celery's way, with a guard around it."""

from __future__ import annotations

from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker import state
from celery.worker.strategy import default
from kombu.exceptions import ContentDisallowed, DecodeError

#: Names a header that the task is to refuse with an error its caller sees.
REFUSED_HEADER = "inferq_refused"


def guarded(task: Any, app: Any, consumer: Any) -> Any:
    """Celery's default strategy, for messages that anybody may have written.

    The consumer rejects what is an InvalidTaskError and lives on; any other error, such as a
    missing id or a time limit that is no pair, would end the worker.
    """
    handle = default(task, app, consumer)

    def handle_guarded(message: Any, *args: Any, **kwargs: Any) -> Any:
        if message.headers.get("eta") is not None and not task.takes_eta:
            # Celery would hold the message, and with it room in the engine, until then.
            message.headers = {**message.headers, "eta": None, REFUSED_HEADER: "eta"}
        try:
            return handle(message, *args, **kwargs)
        except (ContentDisallowed, DecodeError, InvalidTaskError):
            raise
        except Exception as exc:
            _forget(message)
            raise InvalidTaskError(f"malformed message: {exc!r}") from exc

    return handle_guarded


def _forget(message: Any) -> None:
    """Celery may have counted the request as reserved already."""
    request_id = message.headers.get("id")
    if isinstance(request_id, str):
        request = state.requests.get(request_id)
        if request is not None and request.message is message:
            state.task_ready(request)
