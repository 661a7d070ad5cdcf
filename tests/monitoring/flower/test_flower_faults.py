"""Redis away, refusing, or full; nodes that say strange things."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from inferq import Settings
from inferq.cluster.letters import Letters
from inferq.cluster.link import Link
from inferq.cluster.topic import Topic
from inferq.monitoring.flower.reading import Reading
from inferq.monitoring.flower.site import Site
from tests.cluster_harness import frozen
from tests.fake_node import FakeNode
from tests.faults.mortal_redis import RedisServer as MortalServer
from tests.monitoring.flower.dashboard import Dashboard
from tests.monitoring.flower.support import HOSTILE, crowd, say
from tests.redis_server import RedisServer, cluster_settings

ALONE = "--basic-auth=ann:secret"
SENTINEL = "that-was-all"


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[MortalServer]:
    """A server that can be frozen and killed."""
    running = MortalServer(tmp_path / "redis")
    yield running
    running.close()


@pytest.fixture
def lonely(lasting: MortalServer, tmp_path: Path) -> Iterator[Dashboard]:
    """A dashboard of that server."""
    with Dashboard(tmp_path, lasting.url, ALONE) as running:
        yield running


class Silent:
    """Accepts connections, counts them, and never says anything."""

    def __init__(self) -> None:
        self.callers = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for connection in (*self._open, self._listener):
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._open.append(self._listener.accept()[0])
                self.callers += 1


@pytest.fixture
def silent() -> Iterator[Silent]:
    running = Silent()
    yield running
    running.close()


def test_redis_killed_is_said_and_its_return_noticed(
    lonely: Dashboard, lasting: MortalServer
) -> None:
    assert lonely.data()["nodes"] == []
    lasting.kill()
    for path in ("/cluster/data", "/request/data"):
        said = lonely.wait_for(lambda told: "error" in told, path)
        assert "Redis cannot be used" in said["error"]
    answer = lonely.act("cancel", id="r1")
    assert (answer.status_code, "Redis cannot be used" in answer.text) == (503, True)
    with lonely.user() as user:
        assert user.get("/cluster").status_code == 200
    lasting.start()
    lonely.wait_for(lambda told: "error" not in told)
    assert lonely.act("cancel", id="r1").status_code == 409


def test_a_frozen_redis_holds_nothing_else_up(lonely: Dashboard, lasting: MortalServer) -> None:
    with frozen(lasting), lonely.user() as user:
        said = lonely.wait_for(lambda told: "error" in told)
        assert "Redis cannot be used" in said["error"]
        # Tornado's loop goes on: this answer waits for nobody.
        assert user.get("/healthcheck").text == "OK"
    lonely.wait_for(lambda told: "error" not in told)


def test_a_wrong_password_is_said_without_it(redis_server: RedisServer, tmp_path: Path) -> None:
    url = f"redis://nobody:hush-hush@127.0.0.1:{redis_server.port}/0"
    with Dashboard(tmp_path, url, ALONE) as dashboard:
        said = dashboard.data()
        with dashboard.user() as user:
            pages = [user.get(path).text for path in ("/cluster", "/broker", "/request")]
        answer = dashboard.act("drop", id="1-1")
        log = dashboard.process.log()
    assert "it refuses the user or password" in said["error"]
    assert answer.status_code == 503
    assert not any("hush" in text for text in [*pages, str(said), answer.text, log])


def test_what_nodes_say_is_bounded_and_never_breaks_a_page(
    dashboard: Dashboard, node: FakeNode, server: RedisServer
) -> None:
    say(node, host=HOSTILE * 1000, engine=HOSTILE, tokens_per_s=float("inf"), running="many")
    with server.client() as client:
        for name in (HOSTILE, "", "\x00", "x" * 5000):
            client.hset("inferq:default:nodes", name, "no json")
    said = dashboard.wait_for(lambda told: len(told["nodes"]) == 5)
    rows = {row["name"]: row for row in said["nodes"]}
    assert HOSTILE in rows
    assert len(rows[node.name]["host"]) <= 500
    assert (rows[node.name]["tokens_per_s"], rows[node.name]["running"]) == (0.0, 0)


def test_a_large_cluster_costs_few_commands(cluster: Settings, server: RedisServer) -> None:
    crowd(cluster, 300, 10_000)
    with server.client() as client:
        pipe = client.pipeline()
        for number in range(10_000):
            pipe.xadd("inferq:default:ended", {"id": f"e{number}", "story": b""})
            pipe.xadd("inferq:default:dead", {"reason": "r", "raw": "x" * 1000})
        pipe.execute()
        topic = Topic(cluster, Link(cluster))
        reading = Reading(topic, Letters(topic))
        reading.cluster()  # scripts are loaded, the connection made
        cost = {}
        for name, read in (
            ("cluster", reading.cluster),
            ("latest", reading.latest),
            ("request", lambda: reading.request("e1")),
            ("nobody", lambda: reading.request("nobody")),
        ):
            with client.monitor() as heard:
                said = read()
                client.echo(SENTINEL)
                cost[name] = commands(heard)
            assert len(repr(said)) < 400_000
        assert len(reading.cluster()["nodes"]) == 300
        topic.link.close()
    # A handful a kind, and a script for each hundred nodes or queues.
    assert cost["cluster"] <= 60
    assert cost["latest"] <= 2
    assert cost["request"] <= 15
    assert cost["nobody"] <= 15


def commands(heard: Any) -> int:
    """How many the server got before the sentinel, without those of scripts."""
    count = 0
    while SENTINEL not in (command := heard.next_command())["command"]:
        count += command["client_type"] != "lua"
    return count


def test_all_who_ask_a_frozen_redis_are_told(lonely: Dashboard, lasting: MortalServer) -> None:
    def ask(number: int) -> Any:
        return lonely.data("/request/data", id=f"r{number}")

    with frozen(lasting), ThreadPoolExecutor(16) as pool:
        told = list(pool.map(ask, range(40)))
    assert all("Redis cannot be used" in said["error"] for said in told)
    lonely.wait_for(lambda said: "error" not in said)


def test_one_question_finds_out_that_redis_is_away(silent: Silent) -> None:
    async def ask() -> list[Any]:
        site = Site(cluster_settings(silent.port))
        return [await site.request(f"r{number}") for number in range(10)]

    told = asyncio.run(ask())
    assert all("Redis cannot be used" in said["error"] for said in told)
    # The others are told what it found out, and do not wait for the same again.
    assert 1 <= silent.callers < 5
