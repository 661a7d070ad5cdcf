"""Clusters whose nodes serve metrics, and topics on an empty server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from inferq import Settings
from tests.cluster_harness import Cluster, free_port
from tests.faults.conftest import cluster, make_cluster
from tests.faults.processes import Process
from tests.redis_server import RedisServer, cluster_settings

__all__ = ["cluster", "make_cluster", "server", "settings", "watched"]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of this test's own: it may be stopped."""
    running = RedisServer()
    yield running
    running.stop()


@pytest.fixture
def settings(server: RedisServer) -> Settings:
    """Settings of a topic on it."""
    return cluster_settings(server.port)


def watched(cluster: Cluster, name: str, *options: str, **room: Any) -> tuple[Process, int]:
    """A node that serves metrics, not yet ready, and the port."""
    port = free_port()
    options = ("--setting", f"monitoring.metrics_port={port}", *options)
    return cluster.node(name, options=options, **room), port
