"""Clusters for the examples, and what an example is told of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster_harness import QUEUE, TOPIC, Cluster

EXAMPLES = Path(__file__).parents[2] / "examples"


def environment(cluster: Cluster, **more: str) -> dict[str, str]:
    """What an example finds: where the cluster is, and itself."""
    return {
        **os.environ,
        "INFERQ_SCHEDULER_NAME": cluster.settings().scheduler_name,
        "INFERQ_SCHEDULER_URL": cluster.server.url,
        "INFERQ_SCHEDULER_TOPIC": TOPIC,
        "REDIS_URL": cluster.server.url,
        "TEXT_QUEUE": QUEUE,
        "PYTHONPATH": str(EXAMPLES),
        **more,
    }


def start_nodes(cluster: Cluster, *options: str) -> None:
    """One node, or one of each role."""
    roles = {"gpu0": "mixed"}
    if cluster.settings().scheduler_name == "splitwise":
        roles = {"p0": "prefill", "d0": "decode"}
    nodes = [cluster.node(name, role=role, options=options) for name, role in roles.items()]
    cluster.ready(*nodes)


def first_starts(cluster: Cluster) -> dict[str, int]:
    """How often each request was begun from nothing."""
    is_one_step = cluster.settings().scheduler_name == "global"
    return cluster.starts("start" if is_one_step else "prefill")


@pytest.fixture(scope="module", params=["global", "splitwise"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Nodes with the engine that keeps a journal."""
    folder = tmp_path_factory.mktemp("examples")
    with Cluster(folder, scheduler_name=request.param) as running:
        start_nodes(running)
        yield running


@pytest.fixture(scope="module", params=["global", "splitwise"])
def simulated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Nodes with the simulated engine, which takes the time that a GPU would."""
    folder = tmp_path_factory.mktemp("simulated")
    with Cluster(folder, scheduler_name=request.param) as running:
        settings = ("simulated.max_model_len=4200",)
        start_nodes(running, "--engine", "simulated", *(f"--setting={one}" for one in settings))
        yield running
