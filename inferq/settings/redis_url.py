"""A Redis URL, taken apart: ``rediss://user:password@host:port/database?ssl_ca_certs=ca.pem``."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

#: TLS options in a URL, as redis-py, Kombu and Celery name them, and what they allow.
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_CHOICES: dict[str, dict[str, Any]] = {
    "ssl_cert_reqs": {"required": True, "none": False},
    "ssl_check_hostname": {"true": True, "false": False},
}
_ALLOWED = ("db", *TLS_FILES, *_CHOICES)


class RedisUrl(NamedTuple):
    """Where Redis is and who asks. ``path``: of a socket; then there is no host."""

    scheme: str
    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = ""
    #: Options of TLS that the URL names; files by path, choices as booleans.
    tls: tuple[tuple[str, Any], ...] = ()

    def __repr__(self) -> str:
        return f"RedisUrl({self.scheme}://...)"


def parse_redis_url(url: str) -> RedisUrl:
    """Take a URL apart.

    Raises:
        ValueError: what is wrong; never shows what it was given.
    """
    if "#" in url:
        raise ValueError("a special character in it is not percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is no URL, or its port is no number up to 65535") from None
    is_socket = parts.scheme == "unix"
    options = _options(parts.query)
    if options.tls and parts.scheme != "rediss":
        raise ValueError("ssl_ options go with rediss:// only")
    if is_socket and parts.path in ("", "/"):
        raise ValueError("names no socket")
    if not is_socket and not parts.hostname:
        raise ValueError("names no host")
    return RedisUrl(
        scheme=parts.scheme,
        host="" if is_socket else unquote(parts.hostname or ""),
        port=6379 if port is None else port,
        path=unquote(parts.path) if is_socket else "",
        database=options.database if is_socket else _database(parts.path, options.database),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=options.tls,
    )


class _Options(NamedTuple):
    database: int = 0
    tls: tuple[tuple[str, Any], ...] = ()


def _options(query: str) -> _Options:
    database = 0
    tls: list[tuple[str, Any]] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _ALLOWED:
            raise ValueError(f"an option is unknown; allowed are {', '.join(_ALLOWED)}")
        choices = _CHOICES.get(name)
        if name == "db":
            database = _number(value)
        elif choices is None:
            tls.append((name, value))
        elif value in choices:
            tls.append((name, choices[value]))
        else:
            raise ValueError(f"{name}: allowed are {' and '.join(choices)}")
    return _Options(database, tuple(tls))


def _database(path: str, default: int) -> int:
    name = path.strip("/")
    return _number(name) if name else default


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError("the database is a number")
    return int(text)
