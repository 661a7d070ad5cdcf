"""What a scrape says, and what a Prometheus made of it."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from inferq.monitoring.metrics.server import MetricsServer
from tests.support import LONG_S


class Scrape:
    """The samples of one page."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {f.name: f for f in text_string_to_metric_families(text)}
        self.samples = [s for family in self.families.values() for s in family.samples]

    @property
    def names(self) -> set[str]:
        """The names of all samples."""
        return {sample.name for sample in self.samples}

    def get(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels; there must be one."""
        values = [
            s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()
        ]
        assert values, f"no {name} {labels}"
        return sum(values)


def get(port: int, path: str = "/metrics", accept: str = "") -> tuple[int, str, str]:
    """Status, content type and body of a page on the loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_S)
    try:
        connection.request("GET", path, headers={"Accept": accept} if accept else {})
        response = connection.getresponse()
        body = response.read().decode()
        return response.status, response.getheader("Content-Type", ""), body
    finally:
        connection.close()


def scrape(port: int) -> Scrape:
    """The metrics that are served on this port."""
    status, _, body = get(port)
    assert status == 200, body
    return Scrape(body)


def ask(port: int, path: str, **query: str) -> Any:
    """What a Prometheus answers."""
    status, _, body = get(port, f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
    answer = json.loads(body)
    assert status == 200, answer
    assert answer["status"] == "success", answer
    return answer["data"]


@contextmanager
def served(registry: CollectorRegistry) -> Iterator[MetricsServer]:
    """A registry, on a free port."""
    server = MetricsServer("127.0.0.1", 0, registry)
    server.start()
    try:
        yield server
    finally:
        server.stop()
