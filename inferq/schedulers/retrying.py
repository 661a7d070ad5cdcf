"""Steps in Redis that are repeated while it is away, for callers that wait for the outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import AuthenticationError, RedisError

from inferq.cluster.link import AWAY, Backoff, Link, explained
from inferq.cluster.topic import Topic
from inferq.settings import Settings

T = TypeVar("T")


class StillAway(Exception):
    """Redis did not answer in time. Whether it did what was asked is not known."""


class RetryingTopic:
    """A topic for many threads, over one connection. What it is asked to do must be repeatable."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._patience_s = settings.cluster.redis_timeout_s
        # A call that hangs leaves time for a second one.
        self._topic = Topic(settings, Link(settings, timeout_s=self._patience_s / 2))
        self._stop = stop
        self._lock = threading.Lock()

    def close(self) -> None:
        """Drop the connection."""
        with self._lock:
            self._topic.link.close()

    def call(self, work: Callable[[Topic], T]) -> T:
        """Do ``work``, again while Redis is away, for at most ``redis_timeout_s``.

        Raises:
            StillAway: the outcome is not known.
            SchedulerUnavailable: Redis refuses the work; it was not done.
        """
        gives_up_at = time.monotonic() + self._patience_s
        if not self._lock.acquire(timeout=self._patience_s):
            raise StillAway("other callers are waiting for Redis")
        try:
            return self._repeat(work, gives_up_at)
        finally:
            self._lock.release()

    def _repeat(self, work: Callable[[Topic], T], gives_up_at: float) -> T:
        backoff = Backoff(self._stop)
        while True:
            try:
                return work(self._topic)
            except AuthenticationError as exc:  # a ConnectionError to redis-py
                raise explained(exc) from None
            except AWAY as exc:
                if time.monotonic() >= gives_up_at or not backoff.wait():
                    raise StillAway(f"{type(exc).__name__}: {exc}") from None
            except RedisError as exc:
                raise explained(exc) from None
