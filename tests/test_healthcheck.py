"""The health check of containers: what counts as healthy, with real nodes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from inferq.healthcheck import check
from tests.cluster_harness import Cluster, free_port
from tests.faults.answers import submit
from tests.faults.processes import ROOT
from tests.support import LONG_S

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Cluster(tmp_path, **settings))


def test_a_node_that_answers_is_healthy_and_one_that_nobody_knows_is_not(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    [node] = cluster.start("a")
    health = check(cluster.settings(), node.name, LONG_S)
    assert health.is_good
    assert "answered in" in health.words
    assert len(cluster.journal("start")) == 1, "it was a real request"
    health = check(cluster.settings(), "b@test", LONG_S)
    assert (health.is_good, health.words) == (False, "b@test has not joined topic 'faults'")


def test_a_node_that_is_busy_with_others_is_healthy(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(cluster={"steal_after_s": 1e6})
    [node] = cluster.start("a", slots=1)
    with cluster.client() as client:
        [long] = submit(client, "long", 1, tokens=1000, pace_ms=100)
        cluster.wait(lambda: cluster.claims_of(node) == 1)
        health = check(cluster.settings(), node.name, 0.5)
        assert health.is_good
        assert f"{node.name} is busy" in health.words
        long.cancel()


def test_a_node_whose_engine_is_stuck_is_not(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(cluster={"stall_s": 1})
    [node] = cluster.start("a", slots=1)
    with cluster.client() as client:
        submit(client, "stuck", 1, pace_ms=600_000)
        cluster.wait(lambda: cluster.claims_of(node) == 1)
        words = "has made no progress for"
        cluster.wait(lambda: words in check(cluster.settings(), node.name, 0.5).words)
        assert not check(cluster.settings(), node.name, 0.5).is_good
        node.kill()


def test_a_node_that_stands_still_is_not(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    [node] = cluster.start("a")
    node.freeze()
    health = check(cluster.settings(), node.name, 0.5)
    assert not health.is_good
    assert "did not answer within 0.5 s" in health.words
    cluster.wait(lambda: "is lost" in check(cluster.settings(), node.name, 0.5).words)
    node.thaw()


def test_halves_of_a_cluster_are_judged_by_themselves(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(scheduler_name="splitwise")
    decode = cluster.node("d", role="decode")
    cluster.ready(decode)
    health = check(cluster.settings(), decode.name, LONG_S)
    assert (health.is_good, health.words) == (True, "d@test is ready; no node prefills for it")
    prefill = cluster.node("p", role="prefill")
    cluster.ready(prefill)
    for node in (prefill, decode):
        assert "answered in" in check(cluster.settings(), node.name, LONG_S).words


def test_without_redis_it_fails_in_words() -> None:
    env = {
        "PYTHONPATH": str(ROOT),
        "INFERQ_SCHEDULER_NAME": "global",
        "INFERQ_SCHEDULER_PORT": str(free_port()),
        "INFERQ_SCHEDULER_PASSWORD": "hunter2-hunter2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "inferq.healthcheck", "a@test"],
        check=False,
        env=env,
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("Redis cannot be used: ConnectionError")
    assert "hunter2" not in done.stdout + done.stderr
