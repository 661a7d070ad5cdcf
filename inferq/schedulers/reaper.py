"""Ends requests whose time is over, when it is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from inferq.schedulers.ledger import Ledger


class Reaper:
    """A thread that sleeps until the next deadline of a ledger.

    ``on_expired`` is called with the id of each request that has expired.
    """

    def __init__(self, ledger: Ledger, on_expired: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._on_expired = on_expired
        self._stopping = threading.Event()
        self._changed = threading.Event()
        self._looks_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="inferq-ttl", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; nothing expires any more."""
        self._stopping.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()

    def reap(self) -> None:
        """End what is due, now."""
        for request_id in self._ledger.expire():
            self._on_expired(request_id)

    def watch(self) -> None:
        """Deadlines were added: look earlier than planned if one of them says so."""
        due, planned = self._ledger.next_deadline(), self._looks_at
        if due is not None and (planned is None or due < planned):
            self._changed.set()

    def _run(self) -> None:
        while True:
            self._changed.clear()
            if self._stopping.is_set():  # asked after clear: stop() cannot come in between
                return
            self.reap()
            self._looks_at = self._ledger.next_deadline()
            if self._looks_at is None:
                self._changed.wait()
            else:
                self._changed.wait(max(0.0, self._looks_at - time.monotonic()))
