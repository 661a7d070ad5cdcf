"""Kombu transports of inferq."""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

MEMORY_SCHEME = "inferq-memory"
REDIS_SCHEME = "inferq-redis"
REDIS_TRANSPORT = "inferq.transport.redis:Transport"


def register_transports() -> None:
    """Make our URL schemes known to Kombu, which takes no dotted names in URLs."""
    TRANSPORT_ALIASES[MEMORY_SCHEME] = "inferq.transport.memory:Transport"
    TRANSPORT_ALIASES[REDIS_SCHEME] = REDIS_TRANSPORT
