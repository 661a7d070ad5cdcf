"""Control commands of real nodes: drain, resume, role."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferq import Client
from inferq.app import create_cluster_app
from inferq.settings import Settings
from tests.cluster_harness import PREFIX, SHORT_LEASE_S, Cluster, frozen
from tests.faults.answers import check_answers, submit
from tests.faults.processes import Process
from tests.support import LONG_S, wait_until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as running:
        yield running


def tell(settings: Settings, node: Process, command: str, **arguments: Any) -> dict[str, Any]:
    """Send a control command; the answer of the node.

    A node that has just become ready may not listen to commands yet.
    """
    answers: list[dict[str, Any]] = []
    with create_cluster_app(settings) as app:

        def ask() -> bool:
            answers[:] = app.control.broadcast(
                command, arguments, destination=[node.name], reply=True, timeout=2.0
            )
            return bool(answers)

        wait_until(ask)
    said: dict[str, Any] = answers[0][node.name]
    return said


def test_a_drained_node_finishes_and_takes_nothing_until_it_is_resumed(cluster: Cluster) -> None:
    (node,) = cluster.start("a", slots=2)
    settings = cluster.settings()
    with cluster.client() as client:
        running = submit(client, "r", 2, tokens=50, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) == 2)
        assert tell(settings, node, "inferq_drain") == {"ok": "draining"}
        assert cluster.state_of(node) == "draining"
        waiting = submit(client, "w", 3, tokens=3)
        check_answers(running, 50)
        assert cluster.waiting() == 3
        assert tell(settings, node, "inferq_resume") == {"ok": "ready"}
        check_answers(waiting, 3)
    assert cluster.state_of(node) == "ready"
    assert set(cluster.starts().values()) == {1}


def test_what_waits_at_a_drained_node_goes_to_others(cluster: Cluster) -> None:
    drained, other = cluster.start("a", "b", slots=2)
    settings = cluster.settings()
    with cluster.client(node=drained.name) as beside:
        running = submit(beside, "r", 2, tokens=100, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) == 2)
        tell(settings, drained, "inferq_drain")
        waiting = submit(beside, "w", 4, tokens=3)
        check_answers(waiting, 3)
        check_answers(running, 100)
    after = [entry for entry in cluster.journal("start") if entry.request_id.startswith("w")]
    assert {entry.pid for entry in after} == {other.pid}


def test_a_drained_node_stays_drained_when_it_joins_again(tmp_path: Path) -> None:
    with Cluster(tmp_path, lease_s=SHORT_LEASE_S) as cluster:
        node, _ = cluster.start("a", "b")
        tell(cluster.settings(), node, "inferq_drain")
        before = cluster.incarnation(node)
        with frozen(node):
            cluster.wait(lambda: cluster.state_of(node) == "gone")
        cluster.wait(lambda: cluster.incarnation(node) not in ("", before))
        cluster.wait(lambda: cluster.state_of(node) == "draining")
        with cluster.client() as client:
            check_answers(submit(client, "w", 20, tokens=3), 3)
        assert node.pid not in {entry.pid for entry in cluster.journal("start")}


def test_a_drained_node_stops_when_it_is_told_to(cluster: Cluster) -> None:
    (node,) = cluster.start("a")
    tell(cluster.settings(), node, "inferq_drain")
    node.term()
    assert node.wait() == 0, node.tail()
    assert cluster.state_of(node) == "gone"


def test_a_node_of_splitwise_changes_its_role(tmp_path: Path) -> None:
    with Cluster(tmp_path, scheduler_name="splitwise") as cluster:
        (node,) = cluster.start("a")
        settings = cluster.settings()
        limits = [
            f"{PREFIX}limits:{cluster.settings().scheduler_topic}.{p}"
            for p in ("prefill", "decode")
        ]
        assert tell(settings, node, "inferq_role", role="decode") == {"ok": "role is decode"}
        assert [cluster.redis.zcard(key) for key in limits] == [0, 1]
        # A drained node stays drained in its new role.
        tell(settings, node, "inferq_drain")
        tell(settings, node, "inferq_role", role="mixed")
        assert cluster.state_of(node) == "draining"
        assert [cluster.redis.zcard(key) for key in limits] == [0, 0]
        tell(settings, node, "inferq_resume")
        assert [cluster.redis.zcard(key) for key in limits] == [1, 1]


@pytest.mark.parametrize(
    ("command", "arguments", "error"),
    [
        (
            "inferq_role",
            {"role": "prefill"},
            "role='prefill': nodes of the global scheduler are mixed",
        ),
        ("inferq_role", {}, "role=None: nodes of the global scheduler are mixed"),
        ("inferq_role", {"role": ["a"]}, "role=['a']: nodes of the global scheduler are mixed"),
        ("inferq_role", {"role": "mixed", "x": 1}, "arguments 'x': unknown; allowed: role"),
        ("inferq_drain", {"now": True}, "arguments 'now': unknown; allowed: none"),
        ("inferq_resume", {"role": "mixed"}, "arguments 'role': unknown; allowed: none"),
    ],
)
def test_wrong_arguments_are_answered_with_what_is_allowed(
    only_node: tuple[Cluster, Process], command: str, arguments: dict[str, Any], error: str
) -> None:
    cluster, node = only_node
    assert tell(cluster.settings(), node, command, **arguments) == {"error": error}
    assert cluster.state_of(node) == "ready"


@pytest.fixture(scope="module")
def only_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Process]]:
    with Cluster(tmp_path_factory.mktemp("panel")) as running:
        [node] = running.start("a")
        yield running, node


def test_a_worker_of_another_application_says_that_it_is_no_node() -> None:
    from celery import Celery
    from celery.worker.control import Panel

    class State:
        app = Celery(set_as_current=False)

    for command in ("inferq_drain", "inferq_resume", "inferq_role"):
        assert "no inferq node" in Panel.data[command](State())["error"]


def test_the_commands_of_a_local_client_find_no_topic(client: Client) -> None:
    answers = client.app.control.broadcast("inferq_drain", reply=True, timeout=LONG_S, limit=1)
    assert "no inferq node" in next(iter(answers[0].values()))["error"]
