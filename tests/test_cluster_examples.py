"""The examples of a cluster run, each against a real node."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster_harness import QUEUE, TOPIC, Cluster
from tests.faults.processes import Command
from tests.support import LONG_S, wait_until

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("examples")) as running:
        running.start("gpu0")
        yield running


def environment(cluster: Cluster) -> dict[str, str]:
    return {
        **os.environ,
        "INFERQ_SCHEDULER_URL": cluster.server.url,
        "INFERQ_SCHEDULER_TOPIC": TOPIC,
        "REDIS_URL": cluster.server.url,
        "TEXT_QUEUE": QUEUE,
        "PYTHONPATH": str(EXAMPLES),
    }


def run(cluster: Cluster, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env=environment(cluster),
        cwd=cluster.folder,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr + cluster.report()
    return done.stdout


def test_one_question_is_answered_as_a_stream(cluster: Cluster) -> None:
    before = len(cluster.starts())
    run(cluster, str(EXAMPLES / "cluster" / "ask.py"), "hello")
    assert len(cluster.starts()) == before + 1


def test_a_question_may_go_to_one_node(cluster: Cluster) -> None:
    before = len(cluster.starts())
    run(cluster, str(EXAMPLES / "cluster" / "ask.py"), "hello", "--node", "gpu0@test")
    assert len(cluster.starts()) == before + 1


def test_a_batch_of_asyncio_is_answered(cluster: Cluster) -> None:
    lines = run(cluster, str(EXAMPLES / "cluster" / "ask_async.py")).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(f"batch-{n}" for n in range(20))
    assert all("8 tokens, length" in line for line in lines)


def test_a_producer_that_knows_only_celery_gets_its_result(cluster: Cluster) -> None:
    script = str(EXAMPLES / "cluster" / "stock_producer.py")
    printed = run(cluster, script, cluster.server.url, QUEUE)
    assert "length" in printed


def test_a_project_with_tasks_and_settings_of_its_own(cluster: Cluster) -> None:
    worker = Command(
        "shop@test",
        ["-m", "celery", "-A", "shop", "worker", "-P", "solo", "-n", "shop@test", "-l", "INFO"],
        {"REDIS_URL": cluster.server.url, "TEXT_QUEUE": QUEUE, "PYTHONPATH": str(EXAMPLES)},
        cluster.folder / "shop.log",
    )
    cluster.processes.append(worker)
    assert run(cluster, "-m", "shop", "wooden chair").startswith("A wooden chair is")
    # Its own task was called with the result.
    wait_until(lambda: "'wooden chair: 24 tokens (length)'" in worker.log())
