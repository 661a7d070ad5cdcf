"""Runs one request on this node's engine and streams what comes out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from celery.exceptions import Ignore

from inferq.engines.base import Chunk
from inferq.errors import InvalidRequest, RequestCancelled, RequestExpired
from inferq.messages import FinishReason, Output, Request, Timings
from inferq.messages.headers import ATTEMPT_HEADER, DEADLINE_HEADER, SUBMITTED_HEADER
from inferq.worker.node import Node
from inferq.worker.strategy import REFUSED_HEADER

#: Outputs of a request between two questions whether its origin keeps up.
CONGESTION_EVERY = 16
#: How often a request that produces faster than its origin reads looks again, seconds.
CONGESTED_S = 0.02

Start = Callable[[Request], AsyncIterator[Chunk]]


class Call(NamedTuple):
    """One attempt at a request, as its message describes it."""

    request: Request
    origin: str
    attempt: int
    delivery_tag: str
    queue_s: float
    wants_result: bool
    first_index: int = 0


def read_call(context: Any, fields: Mapping[str, Any], ttl_s: float) -> Call:
    """Check a message and fill in what a stock producer leaves out.

    Raises:
        InvalidRequest: a field is wrong.
    """
    if context.get(REFUSED_HEADER):
        raise InvalidRequest("eta", "a request cannot wait for a time; submit it when it is due")
    now = time.time()
    latest = _number(context.get(DEADLINE_HEADER), float, now + ttl_s)
    defaults = {"seed": random.getrandbits(32), "deadline": latest}
    request = Request.parse({**defaults, **fields, "request_id": context.id})
    if request.deadline is not None and request.deadline > latest:
        request = request.model_copy(update={"deadline": latest})
    return Call(
        request=request,
        origin=context.reply_to or "",
        attempt=_number(context.get(ATTEMPT_HEADER), int, 0),
        delivery_tag=str(context.properties.get("delivery_tag", "")),
        queue_s=max(0.0, now - _number(context.get(SUBMITTED_HEADER), float, now)),
        wants_result=not context.ignore_result,
    )


async def run(node: Node, call: Call, start: Start) -> dict[str, Any] | None:
    """Stream the chunks of ``start`` to the origin until the answer ends.

    Returns the whole answer, for Celery's result backend, when somebody wants it there.

    Raises:
        RequestExpired, RequestCancelled: the request's end.
        Ignore: the origin does not want the answer any more.
    """
    left_s = (call.request.deadline or 0.0) - time.time()
    if left_s <= 0:
        raise RequestExpired(call.request.request_id, "its time was over before it was started")
    try:
        async with asyncio.timeout(left_s):
            return await _Answering(node, call).stream(start)
    except TimeoutError:
        raise RequestExpired(call.request.request_id, "its time was over while it ran") from None


class _Answering:
    """The state of one running answer."""

    def __init__(self, node: Node, call: Call) -> None:
        self._node = node
        self._call = call
        self._index = call.first_index
        self._sent = 0
        self._started_at = time.monotonic()
        self._first_at: float | None = None
        self._kept: list[Output] = []

    async def stream(self, start: Start) -> dict[str, Any] | None:
        request, intake = self._call.request, self._node.intake
        # No await may come between these two lines and the first step of the iterator: an
        # iterator that never ran cannot give back what it holds.
        async with aclosing(start(request)) as chunks:  # type: ignore[type-var]
            intake.handed(self._call.delivery_tag)
            async for chunk in chunks:
                output = self._output(chunk)
                if not self._node.outbox.send(self._call.origin, output):
                    raise Ignore("the origin does not want the answer any more")
                if self._call.wants_result:
                    self._kept.append(output)
                self._sent += 1
                if not self._sent % CONGESTION_EVERY:
                    await self._wait_for_room()
        return self._result() if self._call.wants_result else None

    async def _wait_for_room(self) -> None:
        request_id = self._call.request.request_id
        # Redis or the origin's reader is behind, in other processes: there is nothing to await.
        while self._node.outbox.is_congested(request_id):  # noqa: ASYNC110
            await asyncio.sleep(CONGESTED_S)

    def _output(self, chunk: Chunk) -> Output:
        request_id = self._call.request.request_id
        if chunk.finish_reason == FinishReason.CANCELLED:
            raise RequestCancelled(request_id, "the engine aborted it")
        if self._first_at is None:
            self._first_at = time.monotonic()
            self._node.intake.prefilled(self._call.delivery_tag)
        index, self._index = self._index, self._index + len(chunk.token_ids)
        finished = chunk.finish_reason is not None
        return Output(
            request_id,
            self._call.attempt,
            index,
            chunk.token_ids,
            chunk.text,
            finished,
            chunk.finish_reason,
            None,
            self._timings() if finished else None,
            self._node.name if finished else "",
        )

    def _timings(self) -> Timings:
        now = time.monotonic()
        first_at = self._first_at or now
        return Timings(self._call.queue_s, first_at - self._started_at, now - first_at)

    def _result(self) -> dict[str, Any]:
        last = self._kept[-1]
        return {
            "request_id": last.request_id,
            "token_ids": [token for output in self._kept for token in output.token_ids],
            "text": "".join(output.text for output in self._kept),
            "finish_reason": last.finish_reason,
            "attempt": last.attempt,
            "node": last.node,
            "timings": (last.timings or Timings())._asdict(),
        }


def _number(value: Any, kind: Callable[[Any], Any], default: Any) -> Any:
    return kind(value) if type(value) in (int, float) and value >= 0 else default
