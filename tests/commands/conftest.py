"""Commands on an empty server, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import redis
from click.testing import CliRunner

from inferq.commands.main import cli
from tests.redis_server import RedisServer
from tests.schedulers.conftest import cluster, node, producer, shared_server

__all__ = ["cluster", "node", "producer", "shared_server"]


class Answer(NamedTuple):
    """What a command left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value."""
        return json.loads(self.out)


Ask = Callable[..., Answer]


@pytest.fixture
def ask() -> Ask:
    """Runs ``inferq`` with arguments in this process."""

    def run(*arguments: str, given: str | bytes = "") -> Answer:
        result = CliRunner().invoke(cli, arguments, input=given)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def server(shared_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """An empty server, which the environment names."""
    with shared_server.client() as client:
        client.flushall()
    monkeypatch.setenv("INFERQ_SCHEDULER_PORT", str(shared_server.port))
    return shared_server


@pytest.fixture
def store(server: RedisServer) -> Iterator[redis.Redis]:
    """A client for looking into the server."""
    with server.client() as client:
        yield client
