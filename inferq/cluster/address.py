"""Where Redis is, as different libraries write it."""

from __future__ import annotations

from inferq.cluster.link import redis_url
from inferq.settings import Settings
from inferq.transport import REDIS_SCHEME


def kombu_url(settings: Settings) -> str:
    """The address of Redis as Kombu and Celery write it, with its password."""
    url = redis_url(settings)
    if not url.startswith("unix://"):
        return url
    path, _, query = url.removeprefix("unix://").partition("?")
    credentials, _, path = path.rpartition("@")
    options = dict(part.partition("=")[::2] for part in query.split("&") if part)
    at = f"{credentials}@" if credentials else ""
    database = options.get("db", "0")
    # Kombu's own scheme, redis+socket, would choose its transport instead of ours.
    return f"{REDIS_SCHEME}+socket://{at}{path}?virtual_host={database}"
