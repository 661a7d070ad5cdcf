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

    acknowledged: bool

    def acknowledge(self) -> None:
        """Acknowledge at once: Celery would have the consumer's thread do it when it next wakes."""
        source = getattr(self._message.channel, "source", None)
        if source is None:
            super().acknowledge()
        elif not self.acknowledged:
            source.settle(self._message.delivery_tag)
            self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        """Give the message back, or up, at once."""
        source = getattr(self._message.channel, "source", None)
        if source is None:
            super().reject(requeue=requeue)
        elif not self.acknowledged:
            end = source.put_back if requeue else source.refuse
            end(self._message.delivery_tag)
            self.acknowledged = True
            self.send_event("task-rejected", requeue=requeue)

    def _announce_revoked(
        self, reason: str, terminated: bool, signum: str | None, expired: bool
    ) -> None:
        # Before Celery acknowledges: an end that comes later belongs to nobody.
        self._task.on_revoked(self._context, expired=expired)
        super()._announce_revoked(reason, terminated, signum, expired)

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

    def on_revoked(self, request: Context, *, expired: bool) -> None:
        """The message of ``request`` was revoked, or ``expired``, before or while it ran."""

    def _get_request(self) -> Context:
        return current_context.get() or super()._get_request()

    request = property(_get_request)
