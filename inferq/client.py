"""Client and AsyncClient: submit, stream, cancel. They differ in how they wait, only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from celery import Celery

from inferq.handles import AsyncHandle, AsyncOutputs, Handle, Outputs
from inferq.messages import Status
from inferq.results.reply import Result
from inferq.schedulers import Counts
from inferq.session import Reader, Session
from inferq.settings import Settings

__all__ = ["AsyncClient", "AsyncHandle", "AsyncOutputs", "Client", "Handle", "Outputs"]


class _Client:
    """``node``: the node whose own queue takes the requests (global); none: any node."""

    def __init__(self, settings: Settings | None = None, *, node: str | None = None) -> None:
        self._session = Session(settings, node or "")

    @property
    def settings(self) -> Settings:
        """The settings this client was made with."""
        return self._session.settings

    @property
    def app(self) -> Celery:
        """The scheduler's Celery application, for ``send_task``, ``control`` and events."""
        return self._session.scheduler.app

    def counts(self) -> Counts:
        """Live numbers of the scheduler. In global mode this waits for an answer of Redis.

        Raises:
            SchedulerUnavailable: Redis is away.
        """
        return self._session.scheduler.counts()

    def reset(self) -> int:
        """Cancel every request of this client; returns how many had not ended."""
        return self._session.scheduler.reset()


class Client(_Client):
    """Sends requests and waits for answers by blocking. Safe from many threads.

    >>> with Client(Settings(engine="simulated")) as client:  # doctest: +SKIP
    ...     print(client.generate(prompt="Hello", max_tokens=8).text)
    """

    def __enter__(self) -> Self:
        self._session.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what has not ended, and stop. A second call does nothing."""
        self._session.close()

    def submit(self, **fields: Any) -> Handle:
        """Enqueue a request; its fields are those of ``inferq.Request``.

        Raises:
            InvalidRequest, DuplicateRequest: a field is wrong.
            QueueFull: ``scheduler_max_size`` requests are held (local), or ``max_waiting`` wait
                (global).
            SchedulerUnavailable: Redis is away. The request may have been enqueued: submitting
                the same ``request_id`` again is safe.
        """
        return self.submit_many([fields])[0]

    def submit_many(self, requests: Iterable[Mapping[str, Any]]) -> list[Handle]:
        """Enqueue several requests at once, in order.

        Raises:
            QueueFull: names those that did not fit; ``handle`` gives the handles of the rest.
        """
        return [Handle(self._session, reply) for reply in self._session.submit(requests)]

    def cancel(self, request_id: str) -> bool:
        """End a live request; False when it had ended and its end was not read yet.

        In global mode it may be a request of another process, which is told.

        Raises:
            UnknownRequest: no live request has this id.
            SchedulerUnavailable: Redis is away.
        """
        return self._session.cancel_anywhere(request_id)

    def status(self, request_id: str) -> Status:
        """Where a request is, and why it waits; whoever has submitted it (global, splitwise).

        Raises:
            UnknownRequest: this client has no such live request (local).
            SchedulerUnavailable: Redis is away.
        """
        return self._session.scheduler.status(request_id)

    def handle(self, request_id: str) -> Handle:
        """The handle of a live request. Raises UnknownRequest."""
        return Handle(self._session, self._session.scheduler.find(request_id))

    def generate(self, *, timeout: float | None = None, **fields: Any) -> Result:
        """Submit a request and wait for the whole answer; gives up, and cancels, at timeout."""
        handle = self.submit(**fields)
        try:
            return handle.result(timeout)
        finally:
            handle.cancel()

    def stream(self, **fields: Any) -> Outputs:
        """Submit a request now and iterate over its outputs."""
        return self.submit(**fields).stream()


class AsyncClient(_Client):
    """The same for asyncio: only waiting differs."""

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._session.open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Like ``Client.close``."""
        await asyncio.to_thread(self._session.close)

    async def submit(self, **fields: Any) -> AsyncHandle:
        """Like ``Client.submit``."""
        return (await self.submit_many([fields]))[0]

    async def submit_many(self, requests: Iterable[Mapping[str, Any]]) -> list[AsyncHandle]:
        """Like ``Client.submit_many``."""
        session = self._session
        replies = await session.put_async(session.complete(requests))
        return [AsyncHandle(session, reply) for reply in replies]

    async def cancel(self, request_id: str) -> bool:
        """Like ``Client.cancel``."""
        return await self._session.cancel_anywhere_async(request_id)

    async def status(self, request_id: str) -> Status:
        """Like ``Client.status``."""
        return await asyncio.to_thread(self._session.scheduler.status, request_id)

    def handle(self, request_id: str) -> AsyncHandle:
        """Like ``Client.handle``."""
        return AsyncHandle(self._session, self._session.scheduler.find(request_id))

    async def generate(self, *, timeout: float | None = None, **fields: Any) -> Result:
        """Like ``Client.generate``."""
        handle = await self.submit(**fields)
        try:
            return await handle.result(timeout)
        finally:
            handle.cancel()

    def stream(self, **fields: Any) -> AsyncOutputs:
        """Like ``Client.stream``. Needs a running event loop in global mode."""
        session = self._session
        if not session.scheduler.waits_for_network:
            [reply] = session.submit([fields])
            return AsyncOutputs(Reader(session, reply))
        requests = session.complete([fields])

        async def open_reader() -> Reader:
            [reply] = await session.put_async(requests)
            return Reader(session, reply)

        return AsyncOutputs(asyncio.ensure_future(open_reader()))
