"""One connection to Redis, for one thread: commands and scripts, without a pool in between.

redis-py's client takes a connection from a pool, checks its health and parses options for every
command; under load that costs more than everything else a request does in Redis.
"""

from __future__ import annotations

import hashlib
import random
import threading
from functools import cache
from importlib import resources
from typing import Any, Literal

import msgpack
import redis
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    ResponseError,
)

from inferq.errors import SchedulerUnavailable
from inferq.settings import Settings

ScriptName = Literal[
    "adopt",
    "beat",
    "bury",
    "cancel",
    "claim",
    "emit",
    "put_back",
    "register",
    "shards",
    "state",
    "submit",
]

#: What a connection may raise when Redis is away; everything else is an answer.
AWAY = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.BusyLoadingError,
    OSError,
)


class Script:
    """A Lua script, with the parts in front of it that its first line names (``-- uses:``)."""

    def __init__(self, name: str) -> None:
        folder = resources.files("inferq.cluster") / "scripts"
        own = (folder / f"{name}.lua").read_text()
        parts = own.partition("\n")[0].removeprefix("-- uses: ").split()
        texts = [(folder / "lib" / f"{part}.lua").read_text() for part in parts]
        self.name = name
        self.text = "".join((*texts, own))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: ScriptName) -> Script:
    """The script of this name, read once."""
    return Script(name)


class Link:
    """A connection that is made when needed, and again after it was lost. For one thread."""

    def __init__(self, settings: Settings, *, timeout_s: float | None = None) -> None:
        self._pool = connection_pool(settings, timeout_s)
        self._connection: Any = None

    @property
    def connection(self) -> Any:
        """The redis-py connection, connected. Raises one of AWAY."""
        if self._connection is None:
            connection = self._pool.make_connection()
            connection.connect()
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """Drop the connection; the next call makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def call(self, *command: Any) -> Any:
        """One command and its answer.

        Raises:
            one of AWAY: Redis did not answer; whether it did what was asked is not known.
        """
        connection = self.connection
        try:
            connection.send_command(*command, check_health=False)
            return connection.read_response()
        except ResponseError:
            raise
        except BaseException:  # the answer may still come: nobody may read it as another one's
            self.close()
            raise

    def run(self, name: ScriptName, arguments: dict[str, Any]) -> list[Any]:
        """Run a script; what it returns, unpacked, with all strings as bytes.

        Raises one of AWAY.
        """
        chosen = script(name)
        # Lua knows one kind of string. No text that a producer sent may fail to be packed.
        packed = msgpack.packb(arguments, use_bin_type=False, unicode_errors="surrogatepass")
        try:
            answer = self.call("EVALSHA", chosen.sha, 0, packed)
        except NoScriptError:
            answer = self.call("EVAL", chosen.text, 0, packed)
        unpacked: list[Any] = msgpack.unpackb(answer, raw=True)
        return unpacked


def connection_pool(settings: Settings, timeout_s: float | None = None) -> Any:
    """Knows how to connect: address, password, TLS."""
    timeout_s = settings.cluster.redis_timeout_s if timeout_s is None else timeout_s
    url = redis_url(settings)
    return redis.ConnectionPool.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=settings.cluster.redis_timeout_s,
        health_check_interval=0,
        retry=None,
        protocol=2,
        **({} if url.startswith("unix://") else {"socket_keepalive": True}),
    )


def redis_url(settings: Settings) -> str:
    """The address of Redis with its password: never to be printed."""
    if settings.scheduler_url:
        return settings.scheduler_url
    from urllib.parse import quote  # noqa: PLC0415

    password = settings.scheduler_password
    user = f":{quote(password, safe='')}@" if password else ""
    host = settings.scheduler_host
    host = f"[{host}]" if ":" in host else host
    return f"redis://{user}{host}:{settings.scheduler_port}/{settings.scheduler_db}"


def explained(exc: Exception) -> SchedulerUnavailable:
    """What a user is told when Redis cannot be used: never an address with its password."""
    if isinstance(exc, (AuthenticationError, NoPermissionError)):
        reason = "it refuses the user or password, or a right is missing"
    else:
        reason = f"{type(exc).__name__}: {exc}"
    return SchedulerUnavailable(f"Redis cannot be used: {reason}")


class Backoff:
    """Pauses between attempts to reach Redis, which grow to a bound; ``stop`` ends them."""

    def __init__(self, stop: threading.Event, *, most_s: float = 1.0) -> None:
        self._stop = stop
        self._most_s = most_s
        self._pause_s = 0.0

    def reset(self) -> None:
        """It worked."""
        self._pause_s = 0.0

    def wait(self) -> bool:
        """Pause; False when there is no point in going on."""
        self._pause_s = min(self._most_s, max(0.01, self._pause_s * 2))
        return not self._stop.wait(self._pause_s * random.uniform(0.5, 1.0))
