"""Client and AsyncClient: submit, stream, cancel. They differ in how they wait, only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from inferq.messages import Output
from inferq.results.reply import Reply, Result
from inferq.schedulers import Counts
from inferq.session import Session
from inferq.settings import Settings


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


class Handle(_Handle):
    """A submitted request."""

    def stream(self) -> Iterator[Output]:
        """The outputs as they come, from the first one on.

        Leaving the iterator before its end cancels the request.

        Raises:
            RequestFailed, RequestCancelled, RequestExpired: it ended without an answer.
        """
        steps = self._session.outputs(self._reply)
        try:
            for step in steps:
                if isinstance(step, Output):
                    yield step
                else:
                    _block(lambda wake, n=step: self._reply.wait_after(n, wake), None)  # type: ignore[misc]
        finally:
            steps.close()  # type: ignore[attr-defined]

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the whole answer, at most ``timeout`` seconds.

        Raises:
            TimeoutError: it has not ended yet; it goes on.
            RequestFailed, RequestCancelled, RequestExpired: it ended without an answer.
        """
        if not _block(self._reply.wait_end, timeout, self._reply.stop_waiting):
            raise TimeoutError(f"request {self.request_id} has not ended after {timeout} s")
        return self._session.result(self._reply)


class AsyncHandle(_Handle):
    """A submitted request, for asyncio."""

    async def stream(self) -> AsyncIterator[Output]:
        """Like ``Handle.stream``."""
        steps = self._session.outputs(self._reply)
        try:
            for step in steps:
                if isinstance(step, Output):
                    yield step
                else:
                    await self._wait(lambda wake, n=step: self._reply.wait_after(n, wake))  # type: ignore[misc]
        finally:
            steps.close()  # type: ignore[attr-defined]

    async def result(self, timeout: float | None = None) -> Result:
        """Like ``Handle.result``."""
        async with asyncio.timeout(timeout):
            await self._wait(self._reply.wait_end)
        return self._session.result(self._reply)

    async def _wait(self, register: Callable[[Callable[[], None]], bool]) -> None:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        try:
            if register(wake):
                await woken.wait()
        finally:
            self._reply.stop_waiting(wake)


class _Client:
    def __init__(self, settings: Settings | None = None) -> None:
        self._session = Session(settings)

    @property
    def settings(self) -> Settings:
        """The settings this client was made with."""
        return self._session.settings

    def counts(self) -> Counts:
        """Live numbers of the scheduler."""
        return self._session.scheduler.counts()

    def cancel(self, request_id: str) -> bool:
        """End a live request; False when it had ended and its end was not read yet.

        Raises:
            UnknownRequest: no live request has this id.
        """
        return self._session.scheduler.cancel(request_id)

    def reset(self) -> int:
        """Cancel every request; returns how many had not ended."""
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
            QueueFull: ``scheduler_max_size`` requests are held.
        """
        return self.submit_many([fields])[0]

    def submit_many(self, requests: Iterable[Mapping[str, Any]]) -> list[Handle]:
        """Enqueue several requests at once, in order.

        Raises:
            QueueFull: names those that did not fit; ``handle`` gives the handles of the rest.
        """
        return [Handle(self._session, reply) for reply in self._session.submit(requests)]

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

    def stream(self, **fields: Any) -> Iterator[Output]:
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
        return [AsyncHandle(self._session, reply) for reply in self._session.submit(requests)]

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

    async def stream(self, **fields: Any) -> AsyncIterator[Output]:
        """Like ``Client.stream``; the request is submitted at the first step."""
        handle = await self.submit(**fields)
        async for output in handle.stream():
            yield output


def _block(
    register: Callable[[Callable[[], None]], bool],
    timeout_s: float | None,
    unregister: Callable[[Callable[[], None]], None] | None = None,
) -> bool:
    """Block this thread until woken; False when the time is over first."""
    lock = threading.Lock()
    lock.acquire()
    if not register(lock.release):
        woken = True
    else:
        woken = lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))
    if not woken and unregister is not None:
        unregister(lock.release)
    return woken
