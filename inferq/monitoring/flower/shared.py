"""Answers of Redis that many viewers share: asked for by a thread, kept for a moment."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Executor
from typing import Any, NamedTuple

Payload = Mapping[str, Any]


class TooMany(Exception):
    """More questions wait for Redis than may; their askers may come again."""


class _Kept(NamedTuple):
    payload: Payload
    at_s: float


class Shared:
    """Runs readers in an executor; asks once for all who want the same at the same time.

    ``fresh_s``: how long an answer is given again, seconds. ``most``: answers kept, and questions
    that may wait. For the thread of the event loop.
    """

    def __init__(self, executor: Executor, *, fresh_s: float = 1.0, most: int = 64) -> None:
        self._executor = executor
        self._fresh_s = fresh_s
        self._most = most
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._asked: dict[Hashable, asyncio.Future[Payload]] = {}

    async def get(self, key: Hashable, read: Callable[[], Payload]) -> Payload:
        """The answer that ``read`` gives, or gave a moment ago.

        Raises:
            TooMany: too many other questions wait.
        """
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() - kept.at_s < self._fresh_s:
            return kept.payload
        asked = self._asked.get(key)
        if asked is None:
            if len(self._asked) >= self._most:
                raise TooMany
            asked = asyncio.ensure_future(self._ask(key, read))
            self._asked[key] = asked
        # A viewer who leaves does not take the answer away from the others.
        return await asyncio.shield(asked)

    def forget(self) -> None:
        """Something was changed: ask anew from now on."""
        self._kept.clear()

    async def _ask(self, key: Hashable, read: Callable[[], Payload]) -> Payload:
        try:
            payload = await asyncio.get_running_loop().run_in_executor(self._executor, read)
        finally:
            del self._asked[key]
        self._kept[key] = _Kept(payload, time.monotonic())
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return payload
