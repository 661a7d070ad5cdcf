"""What our pages share: one connection to Redis, read and written by one thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from inferq.cluster.letters import Letters
from inferq.cluster.link import AWAY, Link, explained
from inferq.cluster.topic import Topic
from inferq.errors import SchedulerUnavailable
from inferq.monitoring.flower.reading import Reading
from inferq.monitoring.flower.shared import Payload, Shared
from inferq.settings import Settings

T = TypeVar("T")
#: A page does not wait longer for Redis, seconds.
TIMEOUT_S = 1.5
#: After Redis was away, nobody is made to wait for it for this long, seconds.
PAUSE_S = 1.0
#: Changes that may wait for Redis.
MOST_CHANGES = 64


class Site:
    """Answers pages and carries actions out. For the thread of the event loop."""

    def __init__(self, settings: Settings) -> None:
        self.topic_name = settings.scheduler_topic
        # A link is for one thread, and so is all that is built on it.
        self._executor = ThreadPoolExecutor(1, "inferq-flower")
        self._shared = Shared(self._executor)
        self._link = Link(_impatient(settings), timeout_s=TIMEOUT_S)
        self._topic = Topic(settings, self._link)
        self._letters = Letters(self._topic)
        self._reading = Reading(self._topic, self._letters)
        self._changes = 0
        self._away_until_s = 0.0
        self._reason = ""

    async def cluster(self) -> Payload:
        """Nodes, queues and dead letters; ``error`` when Redis cannot be used."""
        return await self._shared.get("cluster", partial(self._answer, self._reading.cluster))

    async def request(self, request_id: str) -> Payload:
        """Where a request is, or what became of it."""
        read = partial(self._reading.request, request_id)
        return await self._shared.get(("request", request_id), partial(self._answer, read))

    async def latest(self) -> Payload:
        """The requests that ended last."""
        return await self._shared.get("latest", partial(self._answer, self._reading.latest))

    async def letter(self, letter_id: str) -> Payload:
        """A dead letter with its message."""
        read = partial(self._reading.letter, letter_id)
        return await self._shared.get(("letter", letter_id), partial(self._answer, read))

    async def cancel(self, request_id: str, message: str) -> str:
        """Cancel a request: ``queued``, ``running`` or ``unknown``.

        Raises:
            SchedulerUnavailable: Redis cannot be used.
        """
        cancel = partial(self._topic.cancel, request_id, tell=True, message=message)
        return await self._change(cancel)

    async def requeue(self, letter_id: str) -> Any:
        """Put a dead letter back into its queue. Raises SchedulerUnavailable."""
        return await self._change(partial(self._letters.requeue, letter_id))

    async def drop(self, letter_id: str) -> Any:
        """Forget a dead letter. Raises SchedulerUnavailable."""
        return await self._change(partial(self._letters.drop, letter_id))

    def forget(self) -> None:
        """Something was changed: read it anew."""
        self._shared.forget()

    async def knows(self, node: str) -> bool:
        """Whether a node of this name has joined the topic. Raises SchedulerUnavailable."""
        return await self._change(partial(self._reading.knows, node))

    async def _change(self, act: Callable[[], T]) -> T:
        if self._changes >= MOST_CHANGES:
            raise SchedulerUnavailable("too many changes at once")
        self._changes += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, partial(self._do, act))
        finally:
            self._changes -= 1
            self.forget()

    def _answer(self, read: Callable[[], Payload]) -> Payload:
        try:
            return self._do(read)
        except SchedulerUnavailable as exc:
            return {"error": str(exc)}

    def _do(self, act: Callable[[], T]) -> T:
        """In the thread: ask Redis, unless it was away a moment ago."""
        if time.monotonic() < self._away_until_s:
            raise SchedulerUnavailable(self._reason)
        try:
            return act()
        except (*AWAY, ResponseError) as exc:
            error = explained(exc)
            if isinstance(exc, AWAY):
                self._reason = str(error)
                self._away_until_s = time.monotonic() + PAUSE_S
            raise error from None


def _impatient(settings: Settings) -> Settings:
    """Settings whose connections are given up soon."""
    timeout_s = min(TIMEOUT_S, settings.cluster.redis_timeout_s)
    cluster = settings.cluster.model_copy(update={"redis_timeout_s": timeout_s})
    return settings.model_copy(update={"cluster": cluster})
