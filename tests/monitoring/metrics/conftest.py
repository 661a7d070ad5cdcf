"""Clusters whose nodes serve metrics, and topics on an empty server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from inferq import Settings
from tests.cluster_harness import Cluster, free_port
from tests.faults.processes import Process
from tests.redis_server import RedisServer, cluster_settings


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes a cluster with the settings given."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Cluster:
            return stack.enter_context(Cluster(tmp_path, **settings))

        yield make


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster."""
    return make_cluster()


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
