"""One connection to Redis, for one thread: commands and scripts, without a pool in between.

redis-py's client takes a connection from a pool, checks its health and parses options for every
command; under load that costs more than everything else a request does in Redis.
"""

from __future__ import annotations

import hashlib
import random
import ssl
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

from inferq.cluster.address import address_of
from inferq.errors import SchedulerUnavailable
from inferq.settings import Settings

ScriptName = Literal[
    "adopt",
    "beat",
    "bury",
    "cancel",
    "claim",
    "emit",
    "hop",
    "letters",
    "purge",
    "put_back",
    "register",
    "requeue",
    "rights",
    "shards",
    "state",
    "stories",
    "submit",
    "survey",
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
            connect(connection)
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
    """Knows how to connect: address, password, TLS.

    Raises:
        SettingsError: the settings contradict each other, or a file cannot be read.
    """
    address = address_of(settings)
    url = address.url
    way: dict[str, Any]
    if address.is_socket:
        way = {"connection_class": redis.UnixDomainSocketConnection, "path": url.path}
    else:
        kind = redis.SSLConnection if address.tls else redis.Connection
        way = {"connection_class": kind, "host": url.host, "port": url.port, **address.tls}
        way["socket_keepalive"] = True
    return redis.ConnectionPool(
        **way,
        db=url.database,
        username=address.user or None,
        password=address.password or None,
        socket_timeout=settings.cluster.redis_timeout_s if timeout_s is None else timeout_s,
        socket_connect_timeout=settings.cluster.redis_timeout_s,
        health_check_interval=0,
        retry=None,
        protocol=2,
    )


class CertificateRefused(AuthenticationError):
    """The certificate of the server, or ours, is not good; waiting would not make it better."""


def connect(connection: Any) -> None:
    """Connect a connection of the pool.

    Raises:
        CertificateRefused: TLS says that one side is not who it should be.
        one of AWAY: Redis did not answer.
    """
    try:
        connection.connect()
    except redis.exceptions.TimeoutError:
        if isinstance(connection, redis.SSLConnection):
            waited_s = connection.socket_connect_timeout
            raise redis.exceptions.TimeoutError(
                f"no TLS within {waited_s} s; does it speak TLS?"
            ) from None
        raise
    except redis.exceptions.ConnectionError as exc:
        reason = _tls_reason(exc)
        if reason is None:
            raise
        connection.disconnect()
        raise CertificateRefused(reason) from None


def _tls_reason(exc: BaseException) -> str | None:
    """Why TLS will never come about; None when it has nothing to do with that."""
    cause = exc.__cause__ or exc.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is refused: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError) and cause.reason in _TLS_REASONS:
        return _TLS_REASONS[cause.reason]
    return None


_UNKNOWN_CLIENT = "the server refuses the certificate of redis.cert_file, or wants one"
_TLS_REASONS = {
    "WRONG_VERSION_NUMBER": "the server does not speak TLS",
    "RECORD_LAYER_FAILURE": "the server does not speak TLS",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _UNKNOWN_CLIENT,
    "TLSV1_ALERT_UNKNOWN_CA": _UNKNOWN_CLIENT,
    "SSLV3_ALERT_BAD_CERTIFICATE": _UNKNOWN_CLIENT,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _UNKNOWN_CLIENT,
}


def explained(exc: Exception) -> SchedulerUnavailable:
    """What a user is told when Redis cannot be used: never an address with its password."""
    if isinstance(exc, CertificateRefused):
        reason = str(exc)
    elif isinstance(exc, AuthenticationError):
        reason = "it refuses the user or password"
    elif isinstance(exc, NoPermissionError) or "ACL failure" in str(exc):  # the latter: in a script
        reason = f"a right of its user is missing: {exc}"
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
