"""Client and AsyncClient: submit, stream, cancel. They differ in how they wait, only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from celery import Celery

from inferq.errors import InferqError
from inferq.messages import Output
from inferq.results.reply import Reply, Result
from inferq.schedulers import Counts
from inferq.session import Reader, Session
from inferq.settings import Settings
from inferq.waiting import block, wait


class _Handle:
    def __init__(self, session: Session, reply: Reply) -> None:
        self._session = session
        self._reply = reply

    @property
    def request_id(self) -> str:
        """The request's id, unique among live requests."""
        return self._reply.request_id

    @property
    def done(self) -> bool:
        """Whether the request has ended, in whichever way."""
        return self._reply.end is not None

    def cancel(self) -> bool:
        """End the request now; False when it had already ended."""
        return self._session.cancel(self._reply)


class Outputs(Iterator[Output]):
    """The outputs of one request, as they come. Also a context manager that closes itself.

    Leaving it before its end cancels the request.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __next__(self) -> Output:
        reader = self._reader
        while not reader.ended:
            output = reader.step()
            if output is not None:
                return output
            block(lambda wake: reader.reply.wait_after(reader.position, wake))
        raise StopIteration

    def close(self) -> None:
        """Stop reading, and cancel the request if it has not ended."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncOutputs(AsyncIterator[Output]):
    """``Outputs`` for asyncio: also an async context manager.

    ``reader`` may still be on its way: its request is being submitted.
    """

    def __init__(self, reader: Reader | asyncio.Future[Reader]) -> None:
        self._reader = reader

    async def __anext__(self) -> Output:
        reader = await self._opened()
        while not reader.ended:
            output = reader.step()
            if output is not None:
                return output
            await wait(lambda wake: reader.reply.wait_after(reader.position, wake), reader.reply)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop reading, and cancel the request if it has not ended."""
        with suppress(InferqError):  # it could not be submitted, which the iterator says
            (await self._opened()).close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _opened(self) -> Reader:
        if isinstance(self._reader, asyncio.Future):
            self._reader = await asyncio.shield(self._reader)
        return self._reader


class Handle(_Handle):
    """A submitted request."""

    def stream(self) -> Outputs:
        """The outputs as they come, from the first one on.

        Leaving the iterator before its end cancels the request. The iterator raises
        RequestFailed, RequestCancelled or RequestExpired when there is no answer.
        """
        return Outputs(Reader(self._session, self._reply))

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the whole answer, at most ``timeout`` seconds.

        Raises:
            TimeoutError: it has not ended yet; it goes on.
            RequestFailed, RequestCancelled, RequestExpired: it ended without an answer.
        """
        if not block(self._reply.wait_end, timeout, self._reply):
            raise TimeoutError(f"request {self.request_id} has not ended after {timeout} s")
        return self._session.result(self._reply)


class AsyncHandle(_Handle):
    """A submitted request, for asyncio."""

    def stream(self) -> AsyncOutputs:
        """Like ``Handle.stream``."""
        return AsyncOutputs(Reader(self._session, self._reply))

    async def result(self, timeout: float | None = None) -> Result:
        """Like ``Handle.result``."""
        async with asyncio.timeout(timeout):
            await wait(self._reply.wait_end, self._reply)
        return self._session.result(self._reply)


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
