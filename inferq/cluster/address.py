"""Where Redis is, who asks and how it is encrypted, as different libraries say it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from inferq.errors import SettingsError
from inferq.settings import Settings
from inferq.settings.files import read_secret
from inferq.settings.redis_url import RedisUrl, parse_redis_url
from inferq.transport import REDIS_SCHEME


@dataclass(frozen=True)
class Address:
    """All that is needed to connect. Shows no password."""

    url: RedisUrl
    user: str
    password: str = field(repr=False)
    #: As redis-py, Kombu and Celery name them; empty: not encrypted.
    tls: dict[str, Any]

    @property
    def is_socket(self) -> bool:
        """Whether it is a socket of this machine."""
        return self.url.scheme == "unix"


def address_of(settings: Settings) -> Address:
    """What the settings say, with the password of a file read now.

    Raises:
        SettingsError: two settings contradict each other, or a file cannot be read.
    """
    url = _url(settings)
    redis = settings.redis
    if redis.user and url.user:
        raise SettingsError("redis.user: scheduler_url names a user as well", ["redis.user"])
    return Address(url, redis.user or url.user, _password(settings, url), _tls(settings, url))


def kombu_url(settings: Settings) -> str:
    """The address as Kombu and Celery write it, with its password; TLS is told them apart."""
    address = address_of(settings)
    url = address.url
    at = _credentials(address)
    if address.is_socket:
        # Kombu's own scheme, redis+socket, would choose its transport instead of ours.
        return f"{REDIS_SCHEME}+socket://{at}{quote(url.path)}?virtual_host={url.database}"
    host = f"[{url.host}]" if ":" in url.host else url.host
    scheme = "rediss" if address.tls else "redis"
    return f"{scheme}://{at}{host}:{url.port}/{url.database}"


def _url(settings: Settings) -> RedisUrl:
    if not settings.scheduler_url:
        return RedisUrl(
            "redis",
            host=settings.scheduler_host,
            port=settings.scheduler_port,
            database=settings.scheduler_db,
            password=settings.scheduler_password,
        )
    try:
        return parse_redis_url(settings.scheduler_url)
    except ValueError as exc:
        raise SettingsError(f"scheduler_url=(secret): {exc}", ["scheduler_url"]) from None


def _password(settings: Settings, url: RedisUrl) -> str:
    path = settings.redis.password_file
    if path is None:
        return url.password
    name = "redis.password_file"
    if url.password:
        raise SettingsError(f"{name}: a password is given as well, without a file", [name])
    try:
        return read_secret(path)
    except ValueError as exc:
        raise SettingsError(f"{name}={path!r}: {exc}", [name]) from None


def _tls(settings: Settings, url: RedisUrl) -> dict[str, Any]:
    redis = settings.redis
    files = {
        "ssl_ca_certs": redis.ca_file,
        "ssl_certfile": redis.cert_file,
        "ssl_keyfile": redis.key_file,
    }
    named = {**{name: path for name, path in files.items() if path}, **dict(url.tls)}
    if not (redis.tls or url.scheme == "rediss"):
        if named:
            raise SettingsError(
                "redis.ca_file, cert_file, key_file: only with redis.tls or rediss://",
                ["redis.tls"],
            )
        return {}
    if url.scheme == "unix":
        raise SettingsError("redis.tls: a socket of this machine has no TLS", ["redis.tls"])
    verify = named.pop("ssl_cert_reqs", True)
    check_host = named.pop("ssl_check_hostname", True) and verify
    reqs = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    return {"ssl_cert_reqs": reqs, "ssl_check_hostname": check_host, **named}


def _credentials(address: Address) -> str:
    if not (address.user or address.password):
        return ""
    password = f":{quote(address.password, safe='')}" if address.password else ""
    return f"{quote(address.user, safe='')}{password}@"
