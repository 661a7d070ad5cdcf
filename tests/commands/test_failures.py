"""Redis away, wrong passwords, old servers: one line, no traceback, no password."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from inferq.commands.main import ALL
from tests.cluster_harness import free_port
from tests.commands.conftest import Ask
from tests.redis_server import RedisServer

SECRET = "the-secret-word"
#: Every command with arguments that are right.
CALLS = [
    ("nodes",),
    ("queues",),
    ("top", "--count", "1"),
    ("submit", "hello"),
    ("cancel", "x"),
    ("status", "x"),
    ("drain", "n"),
    ("resume", "n"),
    ("role", "n", "mixed"),
    ("dead", "list"),
    ("dead", "show", "1-1"),
    ("dead", "requeue", "1-1"),
    ("dead", "drop", "--all"),
    ("reset", "--yes"),
    ("shards", "2"),
    ("doctor",),
]
#: Without a server at all.
OFFLINE = {"settings"}


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """The port of something that answers every command with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with connection:
                while connection.recv(65_536):
                    connection.sendall(reply)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def use(monkeypatch: pytest.MonkeyPatch, port: int, password: str = SECRET) -> None:
    """Have commands go there, and not wait long."""
    monkeypatch.setenv("INFERQ_SCHEDULER_URL", f"redis://:{password}@127.0.0.1:{port}/0")
    monkeypatch.setenv("INFERQ_CLUSTER__REDIS_TIMEOUT_S", "0.5")


def test_every_command_is_tried_here() -> None:
    assert {call[0] for call in CALLS} | OFFLINE == {command.name for command in ALL}


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_redis_that_is_away_is_one_line(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, call: tuple[str, ...]
) -> None:
    port = free_port()
    use(monkeypatch, port)
    answer = ask(*call)
    assert (answer.code, answer.out) == (2, "")
    [line] = answer.err.splitlines()
    assert line.startswith("inferq: ")
    assert "not answer" in line
    assert SECRET not in line


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_wrong_password_is_one_line(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, locked: RedisServer, call: tuple[str, ...]
) -> None:
    use(monkeypatch, locked.port, "a-wrong-word")
    answer = ask(*call)
    assert (answer.code, answer.out) == (2, "")
    [line] = answer.err.splitlines()
    assert "refuses the user or password" in line
    assert "a-wrong-word" not in line


@pytest.fixture(scope="module")
def locked() -> Iterator[RedisServer]:
    running = RedisServer()
    with running.client() as client:
        client.config_set("requirepass", SECRET)
    yield running
    running.stop()


OLD = b"# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n"


@pytest.mark.parametrize(
    "call", [call for call in CALLS if call[0] not in ("submit", "doctor")], ids=" ".join
)
def test_a_server_that_is_too_old_is_named(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, call: tuple[str, ...]
) -> None:
    with answering(b"$%d\r\n%s\r\n" % (len(OLD), OLD)) as port:
        monkeypatch.setenv("INFERQ_SCHEDULER_PORT", str(port))
        answer = ask(*call)
    assert answer.code == 2
    assert answer.err == ("inferq: Redis 6.2.14 is too old: 7.0 or newer is needed (or Valkey)\n")


def test_something_that_is_no_redis_is_one_line(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        monkeypatch.setenv("INFERQ_SCHEDULER_PORT", str(port))
        answer = ask("nodes")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1


def test_a_redis_that_hangs_is_given_up(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"") as port:
        monkeypatch.setenv("INFERQ_SCHEDULER_PORT", str(port))
        monkeypatch.setenv("INFERQ_CLUSTER__REDIS_TIMEOUT_S", "0.3")
        answer = ask("queues")
    assert answer.code == 2
    assert f"Redis at 127.0.0.1:{port}/0 does not answer" in answer.err


def test_a_missing_right_is_named(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, server: RedisServer
) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", f">{SECRET}", "~*", "+ping", "+info")
    monkeypatch.setenv("INFERQ_SCHEDULER_URL", f"redis://weak:{SECRET}@127.0.0.1:{server.port}/0")
    answer = ask("nodes")
    assert answer.code == 2
    assert "a right of its user is missing" in answer.err
    assert len(answer.err.splitlines()) == 1
    assert SECRET not in answer.err
