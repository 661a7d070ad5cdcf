"""A server for all tests of the global scheduler, empty for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inferq import Client, Settings
from tests.fake_node import FakeNode
from tests.proxy import Proxy
from tests.redis_server import RedisServer, cluster_settings

#: How long a producer waits for Redis here, seconds.
PATIENCE_S = 0.6


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RedisServer]:
    running = RedisServer()
    yield running
    running.stop()


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    with shared_server.client() as client:
        client.flushall()
    return shared_server


@pytest.fixture
def cluster(server: RedisServer) -> Settings:
    """Settings of a topic that nobody uses yet."""
    return cluster_settings(server.port)


@pytest.fixture
def node(cluster: Settings) -> Iterator[FakeNode]:
    running = FakeNode(cluster)
    yield running
    running.close()


@pytest.fixture
def producer(cluster: Settings) -> Iterator[Client]:
    with Client(cluster) as running:
        yield running


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
def behind(proxy: Proxy) -> Settings:
    """Settings of a producer that reaches the server through the proxy only."""
    return cluster_settings(proxy.port, cluster={"redis_timeout_s": PATIENCE_S})
