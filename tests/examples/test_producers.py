"""The small examples, each against real nodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster_harness import QUEUE, Cluster
from tests.examples.celery_alone import RUN, make_folder
from tests.examples.conftest import EXAMPLES, environment, first_starts
from tests.faults.processes import Command
from tests.support import LONG_S, wait_until

CANVAS = """
from celery import chain, chord
from shop import settings, tasks
from shop.celery import app

def text(tokens):
    fields = {"prompt": "A chair is", "max_tokens": tokens}
    return app.signature("inferq.prefill", kwargs=fields, queue=settings.TEXT_QUEUE)

store, longest = (task.s("chair").set(queue="shop") for task in (tasks.store, tasks.longest))
print(chain(text(5), store).apply_async().get(timeout=50))
print(chord([text(2), text(3)], longest).apply_async().get(timeout=50))
"""


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
    before = len(first_starts(cluster))
    run(cluster, str(EXAMPLES / "cluster" / "ask.py"), "hello")
    assert len(first_starts(cluster)) == before + 1


def test_a_question_may_go_to_one_node(cluster: Cluster) -> None:
    before = len(first_starts(cluster))
    name = cluster.processes[0].name
    run(cluster, str(EXAMPLES / "cluster" / "ask.py"), "hello", "--node", name)
    assert len(first_starts(cluster)) == before + 1


def test_a_batch_of_asyncio_is_answered(cluster: Cluster) -> None:
    lines = run(cluster, str(EXAMPLES / "cluster" / "ask_async.py")).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(f"batch-{n}" for n in range(20))
    assert all("8 tokens, length" in line for line in lines)


@pytest.fixture(scope="module")
def celery_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("stock") / "packages")


def test_a_producer_needs_celery_and_nothing_of_inferq(
    cluster: Cluster, celery_alone: Path
) -> None:
    script = str(EXAMPLES / "cluster" / "stock_producer.py")
    alone = ["-I", "-S", "-c", RUN, str(celery_alone)]
    printed = run(cluster, *alone, script, cluster.server.url, QUEUE)
    assert "length" in printed


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Command:
    """The worker of a project that knows nothing of inferq."""
    arguments = ["-A", "shop", "worker", "-P", "solo", "-n", "shop@project", "-l", "INFO"]
    log = cluster.folder / "shop.log"
    worker = Command("shop", ["-m", "celery", *arguments], environment(cluster), log)
    cluster.processes.append(worker)
    return worker


def test_a_project_with_tasks_and_settings_of_its_own(cluster: Cluster, shop: Command) -> None:
    assert run(cluster, "-m", "shop", "wooden chair").startswith("A wooden chair is")
    # Its own task was called with the result.
    wait_until(lambda: "'wooden chair: 24 tokens (length)'" in shop.log())


def test_chains_and_chords_go_on_in_the_project(cluster: Cluster, shop: Command) -> None:
    printed = run(cluster, "-c", CANVAS).splitlines()
    assert printed == ["chair: 5 tokens (length)", "chair: 3 tokens (length)"]
