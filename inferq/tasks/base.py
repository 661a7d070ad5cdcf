"""What both tasks share: every end of a request reaches its origin."""

from __future__ import annotations

from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from inferq.errors import InferqError, RequestCancelled, RequestEnded, RequestExpired
from inferq.messages import FinishReason, Output, error_output
from inferq.worker.task import AsyncTask


class InferenceTask(AsyncTask):
    """Tells the origin of every failure; Celery calls ``on_failure`` for all of them."""

    abstract = True
    #: A request that waits for a time would hold room in the engine meanwhile.
    takes_eta = False
    #: Expected ends: logged in one line, without a traceback.
    throws = (InferqError,)

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Send the error as the request's last output."""
        del args, kwargs, einfo
        request = self.request
        send_end(self, request, failure_output(task_id, exc))

    def on_revoked(self, request: Any, *, expired: bool) -> None:
        """Tell the origin of a request that was revoked or expired before or while it ran."""
        if expired:
            output = error_output(
                request.id,
                FinishReason.EXPIRED,
                "expired",
                "its time was over before it was started",
            )
        else:
            output = error_output(request.id, FinishReason.CANCELLED, "cancelled", "it was revoked")
        send_end(self, request, output)


def failure_output(request_id: str, exc: BaseException) -> Output:
    """How an exception of a task looks to the request's origin."""
    message = exc.message if isinstance(exc, RequestEnded) else str(exc)
    if isinstance(exc, RequestExpired):
        return error_output(request_id, FinishReason.EXPIRED, exc.code, message)
    if isinstance(exc, RequestCancelled):
        return error_output(request_id, FinishReason.CANCELLED, exc.code, message)
    if isinstance(exc, InferqError):
        return error_output(request_id, FinishReason.ERROR, exc.code, message)
    if isinstance(exc, (SoftTimeLimitExceeded, TimeLimitExceeded)):
        return error_output(request_id, FinishReason.ERROR, "time_limit", "time limit exceeded")
    return error_output(request_id, FinishReason.ERROR, "internal", f"{type(exc).__name__}: {exc}")


def send_end(task: Any, request: Any, output: Output) -> None:
    """Send the last output of a task's request to its origin."""
    task.backend.send(getattr(request, "reply_to", None) or "", output)
