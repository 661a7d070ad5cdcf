"""The server of metrics, and the port that it takes."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from inferq import Client, Settings, SettingsError
from inferq.monitoring.metrics import open_endpoint, register_cluster_collector
from inferq.monitoring.metrics import server as module
from inferq.monitoring.metrics.server import MOST_AT_ONCE, MetricsServer
from tests.monitoring.metrics.scrape import get, scrape, served
from tests.support import LONG_S, fast, wait_until


class Slow(Collector):
    """Counts how often it is read, and can be held up."""

    def __init__(self) -> None:
        self.reads = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        self.reads += 1
        assert self.go_on.wait(LONG_S)
        metric = Metric("reads", "How often", "gauge")
        metric.add_sample("reads", {}, self.reads)
        yield metric


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def registry(slow: Slow) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(slow)
    return made


def test_both_formats_are_served(registry: CollectorRegistry) -> None:
    Gauge("things", "Things", registry=registry).set(2)
    with served(registry) as server:
        assert scrape(server.port).get("things") == 2
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3"
        status, kind, body = get(server.port, accept=accept)
    assert status == 200
    assert kind.startswith("application/openmetrics-text")
    families = text_string_to_metric_families(body)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} == {"things", "reads"}


def test_other_pages_do_not_exist(registry: CollectorRegistry) -> None:
    with served(registry) as server:
        assert get(server.port, "/metrics?name[]=x")[0] == 200
        assert get(server.port, "/admin")[0] == 404
        assert get(server.port, "/metrics/..%2f")[0] == 404


def test_many_scrapes_at_once_cost_one(registry: CollectorRegistry, slow: Slow) -> None:
    slow.go_on.clear()
    with served(registry) as server, ThreadPoolExecutor(100) as scrapers:
        pages = [scrapers.submit(get, server.port) for _ in range(100)]
        wait_until(lambda: slow.reads == 1)
        assert _answering() <= MOST_AT_ONCE
        slow.go_on.set()
        assert {page.result(LONG_S)[0] for page in pages} == {200}
    assert slow.reads < 10


def test_a_scrape_that_has_begun_is_answered_when_the_server_stops(
    registry: CollectorRegistry, slow: Slow
) -> None:
    server = MetricsServer("127.0.0.1", 0, registry)
    server.start()
    slow.go_on.clear()
    with ThreadPoolExecutor(MOST_AT_ONCE + 4) as pool:
        pages = [pool.submit(get, server.port) for _ in range(3)]
        wait_until(lambda: _answering() == 3)
        ending = pool.submit(server.stop)
        wait_until(lambda: _refuses(server.port) or ending.done())
        slow.go_on.set()
        assert {page.result(LONG_S)[0] for page in pages} == {200}
        ending.result(LONG_S)
    with pytest.raises(ConnectionRefusedError):
        get(server.port)
    server.stop()


def test_those_who_have_asked_are_answered_when_the_server_stops(
    registry: CollectorRegistry, slow: Slow
) -> None:
    server = MetricsServer("127.0.0.1", 0, registry)
    server.start()
    slow.go_on.clear()
    asked = [
        socket.create_connection(("127.0.0.1", server.port), LONG_S)
        for _ in range(MOST_AT_ONCE + 6)
    ]
    for connection in asked:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    wait_until(lambda: _answering() == MOST_AT_ONCE)
    ending = threading.Thread(target=server.stop)
    ending.start()
    wait_until(lambda: server._closed)
    slow.go_on.set()
    for connection in asked:
        with connection, connection.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.0 200 OK")
    ending.join(LONG_S)
    assert not ending.is_alive()


def test_scrapers_that_say_nothing_hold_up_neither_others_for_long_nor_the_end(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.2)
    with served(registry) as server:
        silent = [
            socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * MOST_AT_ONCE)
        ]
        try:
            assert get(server.port)[0] == 200
        finally:
            for connection in silent:
                connection.close()


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x00", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n", b"POST / x"]
)
def test_nonsense_is_refused_and_the_server_lives(registry: CollectorRegistry, sent: bytes) -> None:
    with served(registry) as server:
        with socket.create_connection(("127.0.0.1", server.port), LONG_S) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
        assert get(server.port)[0] == 200


def test_a_port_that_is_taken_is_said_with_its_setting(registry: CollectorRegistry) -> None:
    with served(registry) as server, pytest.raises(SettingsError) as caught:
        open_endpoint(_settings(server.port), "n")
    assert "monitoring.metrics_port" in str(caught.value)
    assert str(server.port) in str(caught.value)
    assert "in use" in str(caught.value)
    assert caught.value.names == ("monitoring.metrics_port",)


def test_without_a_port_there_is_no_endpoint() -> None:
    assert open_endpoint(_settings(0), "n") is None


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SettingsError, match=r"inferq\[metrics\]"):
        open_endpoint(_settings(9), "n")
    with pytest.raises(SettingsError, match=r"inferq\[metrics\]"):
        register_cluster_collector(_settings(0))


def test_local_mode_has_no_worker_to_serve_metrics() -> None:
    with (
        pytest.raises(SettingsError, match=r"monitoring\.metrics_port=9: only worker processes"),
        Client(fast(monitoring={"metrics_port": 9})),
    ):
        pass


@pytest.mark.parametrize(
    "wrong", [{"metrics_port": -1}, {"metrics_port": 65536}, {"log_format": "xml"}, {"port": 1}]
)
def test_a_wrong_setting_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=rf"monitoring\.{next(iter(wrong))}"):
        Settings(monitoring=wrong)


def _settings(port: int) -> Settings:
    return Settings(scheduler_name="global", monitoring={"metrics_port": port})


def _answering() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def _refuses(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            time.sleep(0.01)
            return False
    except OSError:
        return True
