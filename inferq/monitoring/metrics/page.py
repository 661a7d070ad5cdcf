"""A registry written out, at most some times a second, however many ask."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

#: What is younger is given out again, seconds.
FRESH_S = 0.25
_OPEN_METRICS = "application/openmetrics-text"


class Page(NamedTuple):
    """A page and its content type. ``made_at`` by ``time.monotonic``."""

    body: bytes
    content_type: str
    made_at: float


class Pages:
    """The two forms that a scraper may ask for. For any thread; others wait for who writes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._pages: dict[str, Page] = {}
        self._lock = threading.Lock()

    def get(self, accept: str) -> Page:
        """The page in the form that the header ``Accept`` asks for."""
        # One of two, whatever the header says: each form is kept.
        form = f"{_OPEN_METRICS}; version=1.0.0" if _OPEN_METRICS in accept else ""
        with self._lock:
            page = self._pages.get(form)
            if page is None or time.monotonic() - page.made_at > FRESH_S:
                write, content_type = choose_encoder(form)
                page = Page(write(self._registry), content_type, time.monotonic())
                self._pages[form] = page
            return page
