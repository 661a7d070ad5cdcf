"""Result backend in this process: streams to inboxes, and stores final results for a while."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import TimeoutError as CeleryTimeoutError

from inferq.messages import Output
from inferq.results.base import Inbox

DEFAULT_BOUND = 10_000


class Store:
    """Values that expire, at most ``bound`` of them, and inboxes by origin."""

    _stores: ClassVar[dict[str, Store]] = {}
    _registry_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.inboxes: dict[str, Inbox] = {}
        self.bound = DEFAULT_BOUND
        #: Grows with every value stored.
        self.version = 0
        self._values: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._changed = threading.Condition()

    @classmethod
    def named(cls, name: str) -> Store:
        """The store of this name, made when it does not exist."""
        with cls._registry_lock:
            return cls._stores.setdefault(name, cls())

    @classmethod
    def discard(cls, name: str) -> None:
        """Forget the store of this name."""
        with cls._registry_lock:
            cls._stores.pop(name, None)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> bytes | None:
        """The value, unless it has expired."""
        with self._changed:
            expires_at, value = self._values.get(key, (0.0, b""))
        return value if expires_at > time.monotonic() else None

    def set(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value; the oldest goes when there are too many."""
        with self._changed:
            self._values[key] = (time.monotonic() + ttl_s, value)
            self._values.move_to_end(key)
            self._trim()
            self.version += 1
            self._changed.notify_all()

    def delete(self, key: str) -> None:
        """Forget a value."""
        with self._changed:
            self._values.pop(key, None)

    def wait(self, version: int, timeout_s: float | None) -> None:
        """Wait until something was stored since ``version``."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != version, timeout_s)

    def _trim(self) -> None:
        now = time.monotonic()
        while self._values:
            oldest = next(iter(self._values))
            if len(self._values) <= self.bound and self._values[oldest][0] > now:
                break
            del self._values[oldest]


class MemoryBackend(KeyValueStoreBackend):  # type: ignore[misc]
    """Celery result backend and Outbox. URL: ``inferq-memory://NAME``."""

    supports_native_join = False
    persistent = False

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app=app, url=url, **kwargs)
        self.store = Store.named(urlsplit(url or "").hostname or "default")

    def send(self, origin: str, output: Output) -> bool:
        """Hand an output to the inbox of its origin."""
        inbox = self.store.inboxes.get(origin)
        # A stock Celery producer has a reply address, too, but nobody streams from it.
        return inbox is None or inbox.deliver(output)

    def is_congested(self, request_id: str) -> bool:
        """Never: the inbox is in this process, and its requests are bounded."""
        del request_id
        return False

    def get(self, key: Any) -> bytes | None:
        """The stored value."""
        return self.store.get(_text(key))

    def mget(self, keys: Iterable[Any]) -> list[bytes | None]:
        """The stored values."""
        return [self.get(key) for key in keys]

    def set(self, key: Any, value: Any) -> None:
        """Store a value for ``result_expires``."""
        data = value.encode() if isinstance(value, str) else value
        self.store.set(_text(key), data, float(self.expires or 0) or float("inf"))

    def delete(self, key: Any) -> None:
        """Forget a value."""
        self.store.delete(_text(key))

    def wait_for(self, task_id: str, timeout: float | None = None, **_: Any) -> Any:
        """Wait for a task's end without polling; Celery's AsyncResult.get calls it.

        Raises:
            celery.exceptions.TimeoutError: it did not end in time.
        """
        self._ensure_not_eager()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            version = self.store.version
            meta = self.get_task_meta(task_id)
            if meta["status"] in self.READY_STATES:
                return meta
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise CeleryTimeoutError("The operation timed out.")
            self.store.wait(version, left)


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else str(key)
