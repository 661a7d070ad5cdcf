"""A submitted request, and its outputs as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Self

from inferq.errors import InferqError
from inferq.messages import Output
from inferq.results.reply import Reply, Result
from inferq.session import Reader, Session
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
