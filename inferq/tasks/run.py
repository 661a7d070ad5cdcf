"""Runs one phase of a request on this node's engine and streams what comes out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from celery.exceptions import Ignore

from inferq.engines.base import Chunk
from inferq.errors import EngineError, KvLost, RequestCancelled, RequestExpired
from inferq.messages import FinishReason, Handoff, Output, Request, Timings
from inferq.tasks.call import Before, Call
from inferq.worker.node import Node

#: Outputs of a request between two questions whether its origin keeps up.
CONGESTION_EVERY = 16
#: How often a request that produces faster than its origin reads looks again, seconds.
CONGESTED_S = 0.02

T = TypeVar("T")
Start = Callable[[Request], AsyncIterator[Chunk]]


async def run(
    node: Node, call: Call, start: Start, *, hands_off: bool = False
) -> dict[str, Any] | None:
    """Stream the chunks of ``start`` to the origin until the answer ends.

    ``hands_off``: a handoff is expected. Returns the whole answer, for Celery's result backend,
    when somebody wants it there.

    Raises:
        RequestExpired, RequestCancelled: the request's end.
        KvLost: it can go on after another prefill.
        Ignore: the request goes on elsewhere, or the origin does not want it any more.
    """
    answering = _Answering(node, call, hands_off)
    whole_s = None
    try:
        result = await in_time(call, lambda: answering.stream(start))
        whole_s = call.queue_s + answering.elapsed_s
        return result
    finally:
        node.stats.left(answering.produced, whole_s)


async def in_time(call: Call, work: Callable[[], Awaitable[T]]) -> T:
    """Do a part of the work for a request while its life lasts.

    Raises:
        RequestExpired: its time was over.
    """
    left_s = (call.request.deadline or 0.0) - time.time()
    if left_s <= 0:
        raise RequestExpired(call.request.request_id, "its time was over before it was started")
    try:
        async with asyncio.timeout(left_s):
            return await work()
    except TimeoutError:
        raise RequestExpired(call.request.request_id, "its time was over while it ran") from None


class _Answering:
    """The state of one running answer."""

    def __init__(self, node: Node, call: Call, hands_off: bool) -> None:
        self._node = node
        self._call = call
        self._hands_off = hands_off
        self._before = call.before or Before()
        self._index = 0
        self._sent = 0
        self._started_at = time.monotonic()
        self._first_at: float | None = None
        self._kept: list[Output] = []
        self._text: list[str] = []
        self._ids: list[int] = []
        self._handed_off = False

    @property
    def elapsed_s(self) -> float:
        """Since it was started here."""
        return time.monotonic() - self._started_at

    @property
    def produced(self) -> int:
        """Tokens of the answer that were computed here."""
        return max(0, self._index - len(self._before.token_ids))

    async def stream(self, start: Start) -> dict[str, Any] | None:
        request, intake = self._call.request, self._node.intake
        self._node.check_wanted(request.request_id)
        self._begin()
        # No await may come between these two lines and the first step of the iterator: an
        # iterator that never ran cannot give back what it holds.
        async with aclosing(start(request)) as chunks:  # type: ignore[type-var]
            intake.handed(self._call.delivery_tag)
            async for chunk in chunks:
                if chunk.handoff is not None:
                    self._hand_off(chunk.handoff)
                elif not (self._handed_off and chunk.finish_reason):
                    self._send(self._output(chunk))
                if self._sent and not self._sent % CONGESTION_EVERY:
                    await self._wait_for_room()
        if self._handed_off:
            raise Ignore("it goes on at another node")
        return self._result() if self._call.wants_result else None

    def _begin(self) -> None:
        """Say again what was produced before, if the origin counts anew; else go on behind it."""
        before = self._before
        if not before.token_ids:
            return
        self._ids, self._text = list(before.token_ids), [before.text]
        output = Output(
            self._call.request.request_id, self._call.attempt, 0, before.token_ids, before.text
        )
        self._index = len(before.token_ids)
        if before.resend:
            self._send(output)
        elif self._call.wants_result:
            self._kept.append(output)

    def _send(self, output: Output) -> None:
        if not self._node.outbox.send(self._call.origin, output):
            raise Ignore("the origin does not want the answer any more")
        if self._call.wants_result:
            self._kept.append(output)
        self._sent += 1

    async def _wait_for_room(self) -> None:
        request_id = self._call.request.request_id
        # Redis or the origin's reader is behind, in other processes: there is nothing to await.
        while self._node.outbox.is_congested(request_id):  # noqa: ASYNC110
            await asyncio.sleep(CONGESTED_S)

    def _hand_off(self, handoff: Handoff) -> None:
        """The other phase can begin; what this one produces from here on is said twice."""
        if self._node.onward is None or not self._hands_off:
            raise EngineError("this node has nobody to hand off to")
        sequential = handoff.family == "sequential"
        self._handed_off = True
        self._node.onward.to_decode(
            self._call,
            handoff.model_copy(
                update={
                    "attempt": self._call.attempt,
                    "node": self._node.name,
                    "queue_s": self._call.queue_s,
                    "prefill_s": time.monotonic() - self._started_at + self._before.prefill_s,
                    "token_ids": tuple(self._ids) if sequential and handoff.token_ids else (),
                    "text": "".join(self._text) if sequential and handoff.token_ids else "",
                }
            ),
        )

    def _output(self, chunk: Chunk) -> Output:
        request_id = self._call.request.request_id
        if chunk.finish_reason == FinishReason.CANCELLED:
            if self._node.was_deserted(request_id):
                raise KvLost("the node that computed the other half was lost")
            raise RequestCancelled(request_id, "the engine aborted it")
        if self._first_at is None:
            self._first_at = time.monotonic()
            self._node.intake.prefilled(self._call.delivery_tag)
            self._node.stats.began(self._call, self._first_at - self._started_at)
        index, self._index = self._index, self._index + len(chunk.token_ids)
        if self._hands_off:
            self._ids += chunk.token_ids
            self._text.append(chunk.text)
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
            self._before.crossing if finished else None,
        )

    def _timings(self) -> Timings:
        now = time.monotonic()
        first_at = self._first_at if self._first_at is not None else now
        if self._before.crossing is None:
            return Timings(self._call.queue_s, first_at - self._started_at, now - first_at)
        return Timings(self._before.queue_s, self._before.prefill_s, now - self._started_at)

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
