"""What the sync and the async client share: everything except how they wait."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from inferq.errors import ClientClosed, InvalidRequest, RequestEnded, UnknownRequest
from inferq.messages import Output, Request
from inferq.messages.limits import check_limits
from inferq.results.reply import Reply, Result
from inferq.schedulers import Scheduler, create_scheduler
from inferq.settings import Settings


class Session:
    """One scheduler and the requests sent through it. Safe from many threads."""

    def __init__(self, settings: Settings | None, node: str = "") -> None:
        self.settings = settings if settings is not None else Settings()
        self._node = node
        self._scheduler: Scheduler | None = None
        self._lock = threading.Lock()

    @property
    def scheduler(self) -> Scheduler:
        """The running scheduler. Raises ClientClosed."""
        if self._scheduler is None:
            raise ClientClosed("the client is not open: use it in a with statement")
        return self._scheduler

    def open(self) -> None:
        """Start the scheduler; see Scheduler.start for what it raises."""
        with self._lock:
            if self._scheduler is not None:
                raise ClientClosed("the client is open already")
            scheduler = create_scheduler(self.settings, self._node)
            scheduler.start()
            self._scheduler = scheduler

    def close(self) -> None:
        """Cancel what has not ended, and stop. A second call does nothing."""
        with self._lock:
            scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.stop()

    def submit(self, requests: Iterable[Mapping[str, Any]]) -> list[Reply]:
        """Check the fields of each request, complete them, and enqueue all."""
        return self.scheduler.put(self.complete(requests))

    def complete(self, requests: Iterable[Mapping[str, Any]]) -> list[Request]:
        """Check the fields of each request and give it what its caller left out."""
        return [self._complete(fields) for fields in requests]

    async def put_async(self, requests: list[Request]) -> list[Reply]:
        """Enqueue without holding up the event loop.

        Who stops waiting for this has given up the requests: they are cancelled.
        """
        scheduler = self.scheduler
        if not scheduler.waits_for_network:
            return scheduler.put(requests)
        job = asyncio.ensure_future(asyncio.to_thread(scheduler.put, requests))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            job.add_done_callback(self._abandon_all)
            raise

    def _abandon_all(self, job: asyncio.Future[list[Reply]]) -> None:
        if not job.cancelled() and job.exception() is None:
            for reply in job.result():
                self.abandon(reply)

    def _complete(self, fields: Mapping[str, Any]) -> Request:
        # What a caller may leave out: id, seed, deadline.
        latest = time.time() + self.settings.scheduler_ttl
        given = {name: value for name, value in fields.items() if value is not None}
        defaults = {
            "request_id": f"{random.getrandbits(128):032x}",
            "seed": random.getrandbits(32),
            "deadline": latest,
        }
        request = Request.parse({**defaults, **given})
        check_limits(request, self.settings.limits)
        if request.deadline is not None and request.deadline > latest:
            request = request.model_copy(update={"deadline": latest})
        if request.deadline is not None and request.deadline <= time.time():
            raise InvalidRequest("deadline", "is in the past; it is a UNIX time in seconds")
        return request

    def result(self, reply: Reply) -> Result:
        """The whole answer of a request that has ended; its end counts as read."""
        self.read_end(reply)
        return reply.result()

    def read_end(self, reply: Reply) -> None:
        """The caller knows how the request ended."""
        if self._scheduler is not None:
            self._scheduler.forget(reply.request_id)

    def cancel_anywhere(self, request_id: str) -> bool:
        """End a live request of this or, with some schedulers, another process."""
        try:
            return self.scheduler.cancel(request_id)
        except UnknownRequest:
            return self.scheduler.cancel_elsewhere(request_id)

    async def cancel_anywhere_async(self, request_id: str) -> bool:
        """The same without holding up the event loop."""
        try:
            return self.scheduler.cancel(request_id)
        except UnknownRequest:
            return await asyncio.to_thread(self.scheduler.cancel_elsewhere, request_id)

    def cancel(self, reply: Reply) -> bool:
        """End a request; False when it has ended."""
        if reply.end is not None:
            return False
        try:
            return self.scheduler.cancel(reply.request_id)
        except UnknownRequest:  # it ended, and was read, at this very moment
            return False

    def abandon(self, reply: Reply) -> None:
        """The caller has lost interest: cancel, and forget."""
        scheduler = self._scheduler
        if scheduler is not None:
            with suppress(UnknownRequest):  # it ended, and was read, at this very moment
                scheduler.cancel(reply.request_id)
            scheduler.forget(reply.request_id)


class Reader:
    """Reads the outputs of one request, once, in order.

    Who drops or closes a reader before the end has lost interest: the request is cancelled.
    """

    def __init__(self, session: Session, reply: Reply) -> None:
        self.reply = reply
        self._session = session
        self.position = reply.begin
        self.ended = False

    def step(self) -> Output | None:
        """The next output; None: wait until there are more than ``position``.

        Raises:
            RequestEnded: the request ended without an answer.
        """
        try:
            output = self.reply.at(self.position)
        except RequestEnded:
            self._end()
            raise
        if output is not None:
            self.position += 1
            if output.finished:
                self._end()
        return output

    def close(self) -> None:
        """Stop reading; a second call does nothing."""
        if not self.ended:
            self.ended = True
            self._session.abandon(self.reply)

    def __del__(self) -> None:
        self.close()

    def _end(self) -> None:
        self.ended = True
        self._session.read_end(self.reply)
