"""A topic of its own for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_harness import SHORT_LEASE_S, Cluster


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
def hasty_cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster with a short lease."""
    return make_cluster(lease_s=SHORT_LEASE_S)


@pytest.fixture(params=["sequential", "concurrent"])
def family(request: pytest.FixtureRequest) -> str:
    """How engines hand off."""
    return str(request.param)


@pytest.fixture
def make_split(make_cluster: Callable[..., Cluster], family: str) -> Callable[..., Cluster]:
    """Makes a cluster in which prefill and decode may be on different nodes, for each family."""

    def make(**settings: Any) -> Cluster:
        return make_cluster(**{"scheduler_name": "splitwise", "family": family, **settings})

    return make
