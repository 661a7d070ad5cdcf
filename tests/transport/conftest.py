from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from kombu import Connection

from inferq.transport import register_transports
from inferq.transport.broker import Broker


@pytest.fixture
def url() -> Iterator[str]:
    """A broker of its own for each test."""
    register_transports()
    name = uuid.uuid4().hex
    yield f"inferq-memory://{name}"
    Broker.discard(name)


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with Connection(url) as opened:
        yield opened
