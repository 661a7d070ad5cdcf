"""Which node runs which request, as Celery's events tell it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from celery import Celery

HEARD_S = 30.0


class Watch:
    """Listens, from a thread of its own, while its block lasts. Nodes send events with ``-E``."""

    def __init__(self, url: str) -> None:
        self._app = Celery(broker=url, set_as_current=False)
        self._receiver: Any = None
        self._heard: set[str] = set()
        self._ran_on: dict[str, str] = {}
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="demo-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._receiver is not None:
            self._receiver.should_stop = True
        self._thread.join(HEARD_S)
        self._app.close()

    def node_of(self, request_id: str) -> str:
        """The node that received a request last; empty: none yet."""
        return self._ran_on.get(request_id, "")

    def wait_heard(self, nodes: Collection[str]) -> bool:
        """Wait until each node was heard; False when one was not."""
        with self._news:
            return self._news.wait_for(lambda: self._heard >= set(nodes), HEARD_S)

    def _run(self) -> None:
        connection = self._app.connection_for_read()
        # Without Redis there is nothing to tell; others say so.
        with connection, suppress(*connection.connection_errors):
            handlers = {"*": self._on_event}
            self._receiver = self._app.events.Receiver(connection, handlers=handlers)
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def _on_event(self, event: Mapping[str, Any]) -> None:
        with self._news:
            self._heard.add(event["hostname"])
            if event["type"] == "task-received":
                self._ran_on[event["uuid"]] = event["hostname"]
            self._news.notify_all()
