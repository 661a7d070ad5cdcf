"""A server, a dashboard and a browser for all tests of a session; an empty topic for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.monitoring.flower.browser import MISSING, Browser
from tests.monitoring.flower.dashboard import USERS, Dashboard
from tests.redis_server import RedisServer
from tests.schedulers.conftest import cluster, node, producer

__all__ = ["cluster", "node", "producer"]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    running = RedisServer()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def shared_dashboard(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dashboard]:
    """With an operator and a viewer."""
    folder = tmp_path_factory.mktemp("flower")
    with Dashboard(folder, f"redis://127.0.0.1:{redis_server.port}/0", *USERS) as running:
        yield running


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """Its topic is empty; what Celery keeps for remote control stays."""
    with redis_server.client() as client:
        for key in [*client.scan_iter("inferq:*"), *client.scan_iter("default.*")]:
            client.delete(key)
    return redis_server


@pytest.fixture
def dashboard(shared_dashboard: Dashboard, server: RedisServer) -> Dashboard:
    """Of a topic that is empty."""
    return shared_dashboard


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if MISSING:
        pytest.skip(MISSING)
    with Browser(tmp_path_factory.mktemp("browser")) as running:
        yield running
