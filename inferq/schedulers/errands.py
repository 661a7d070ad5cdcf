"""What an origin has to tell Redis while nobody waits: that it lives, and what it gave up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from redis.exceptions import ConnectionError, RedisError  # noqa: A004

from inferq.cluster.link import AWAY, Backoff, Link
from inferq.cluster.topic import Topic
from inferq.results.inbox import StreamInbox
from inferq.settings import Settings

logger = logging.getLogger(__name__)

#: Cancellations kept while Redis is away; what is beyond ends at its deadline.
MOST_CANCELS = 1_000_000


class Errands:
    """A thread that keeps the origin's streams alive and passes cancellations on."""

    def __init__(self, settings: Settings, origin: str, inbox: StreamInbox) -> None:
        self._origin = origin
        self._inbox = inbox
        self._topic = Topic(settings, Link(settings))
        #: Ids in order; one that is being passed on is still here.
        self._cancels: dict[str, None] = {}
        self._keeps_at = time.monotonic()
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="inferq-errands", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._keeps_at = time.monotonic() + self._inbox.keep_every_s
        self._thread.start()

    def cancel(self, *request_ids: str) -> None:
        """Have requests of this origin cancelled, soon. Never waits for Redis."""
        if not request_ids:  # the usual case after a put: nobody is woken for nothing
            return
        with self._changed:
            self._cancels |= dict.fromkeys(request_ids)
            while len(self._cancels) > MOST_CANCELS:
                del self._cancels[next(iter(self._cancels))]
            self._changed.notify_all()

    def wait_for(self, request_ids: Sequence[str], timeout_s: float) -> bool:
        """Wait until cancellations of these ids were passed on, so that they hit nothing newer.

        False when that takes longer than ``timeout_s``.
        """
        if not self._cancels:  # the usual case
            return True
        with self._changed:
            return self._changed.wait_for(
                lambda: not any(name in self._cancels for name in request_ids), timeout_s
            )

    def stop(self) -> None:
        """Pass on what is left, unless Redis is away, and delete the streams."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        backoff = Backoff(self._stopping)
        while not self._stopping.is_set():
            self._wait()
            try:
                self._work()
                backoff.reset()
            except (*AWAY, RedisError) as exc:
                self._topic.link.close()
                logger.debug("Redis cannot be told: %s", exc)
                backoff.wait()
        self._finish()

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._cancels or self._stopping.is_set(),
                max(0.0, self._keeps_at - time.monotonic()),
            )

    def _work(self) -> None:
        while (request_id := self._next()) is not None:
            self._keep()  # cancellations may be many
            self._topic.cancel(request_id, origin=self._origin)
            with self._changed:
                self._cancels.pop(request_id, None)
                self._changed.notify_all()
        self._keep()

    def _keep(self) -> None:
        if self._keeps_at <= time.monotonic() and not self._stopping.is_set():
            self._inbox.keep(self._topic.link)
            self._keeps_at = time.monotonic() + self._inbox.keep_every_s

    def _next(self) -> str | None:
        with self._changed:
            return next(iter(self._cancels), None)

    def _finish(self) -> None:
        try:
            try:
                self._end()
            except ConnectionError:  # maybe only this connection was lost
                self._end()
        except (*AWAY, RedisError) as exc:
            logger.debug("Redis was not told of the end: %s", exc)
        finally:
            self._topic.link.close()

    def _end(self) -> None:
        self._work()
        self._inbox.discard(self._topic.link)
