"""Task and request classes that let hundreds of coroutines share one thread."""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.app.task import Context
from celery.worker.request import Request as CeleryRequest

from inferq.worker.tracer import current_context


class AsyncRequest(CeleryRequest):  # type: ignore[misc]
    """A received message whose body is decoded once, not once more in the pool."""

    def __init__(self, message: Any, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        _, _, embed = self._body if self._decoded else message.payload
        if isinstance(embed, dict):
            self._request_dict.update(embed)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A time limit passed; the task's ``on_failure`` needs to know whose it was."""
        token = current_context.set(self._context)
        try:
            super().on_timeout(soft, timeout)
        finally:
            current_context.reset(token)


class AsyncTask(Task):  # type: ignore[misc]
    """Base of ``async def`` tasks: ``self.request`` is that of the running coroutine.

    Celery keeps requests on a stack per thread, which interleaved coroutines would mix up.
    """

    abstract = True
    Request = "inferq.worker.task:AsyncRequest"
    Strategy = "inferq.worker.strategy:guarded"
    #: Whether a message may ask to be run later (``eta``, ``countdown``).
    takes_eta = True

    def _get_request(self) -> Context:
        return current_context.get() or super()._get_request()

    request = property(_get_request)
