"""``drain``, ``resume``, ``role`` and ``shards``, on real nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from inferq import RequestFailed
from inferq.cluster.topic import Adoption, Burial
from tests.cluster_harness import PREFIX, QUEUE, TOPIC, Cluster
from tests.commands.conftest import Ask
from tests.commands.test_looking import HOSTILE, is_harmless
from tests.fake_node import PLENTY, ROOM, FakeNode
from tests.faults.answers import check_answers, submit
from tests.faults.processes import Process
from tests.support import LONG_S


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Process]]:
    """A cluster of splitwise with one node."""
    with Cluster(tmp_path_factory.mktemp("steering"), scheduler_name="splitwise") as cluster:
        [node] = cluster.start("a")
        yield cluster, node


@pytest.fixture
def nearby(
    running: tuple[Cluster, Process], monkeypatch: pytest.MonkeyPatch
) -> tuple[Cluster, Process]:
    """The cluster, which the environment names."""
    monkeypatch.setenv("INFERQ_SCHEDULER_URL", running[0].server.url)
    monkeypatch.setenv("INFERQ_SCHEDULER_TOPIC", TOPIC)
    monkeypatch.setenv("INFERQ_SCHEDULER_NAME", "splitwise")
    return running


def test_a_node_is_drained_and_resumed(ask: Ask, nearby: tuple[Cluster, Process]) -> None:
    harness, node = nearby
    assert ask("drain", node.name) == (0, "a@test: draining\n", "")
    assert harness.state_of(node) == "draining"
    [shown] = ask("nodes", "--json").json
    assert (shown["state"], shown["live"], shown["pid"]) == ("draining", True, node.pid)
    assert ask("resume", "a", "--json").json == {"node": "a@test", "answer": "ready"}
    assert harness.state_of(node) == "ready"
    with harness.client() as client:
        check_answers(submit(client, "r", 3, tokens=3), 3)


def test_a_node_changes_its_role(ask: Ask, nearby: tuple[Cluster, Process]) -> None:
    harness, node = nearby
    assert ask("role", node.name, "prefill").out == "a@test: role is prefill\n"
    harness.wait(lambda: ask("nodes", "--json").json[0]["role"] == "prefill")
    doctor = ask("doctor", "--json")
    assert any("no node serves decode" in finding["what"] for finding in doctor.json)
    assert ask("role", node.name, "mixed").code == 0
    harness.wait(lambda: ask("nodes", "--json").json[0]["role"] == "mixed")


def test_the_clocks_of_nodes_are_asked(ask: Ask, nearby: tuple[Cluster, Process]) -> None:
    findings = ask("doctor", "--json").json
    assert not [f for f in findings if "control command" in f["what"] or "opinion" in f["what"]]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("drain", "b"), "b is no node of topic faults; known are a@test"),
        (("role", "a@test", "both"), "'both' is not one of"),
        (("role", "a@test"), "Missing argument '{mixed|prefill|decode}'"),
        (("drain",), "Missing argument 'NODE'"),
        (("shards", "0"), "0 is not in the range"),
        (("shards", "x"), "'x' is not a valid integer range"),
    ],
)
def test_wrong_arguments_are_told(
    ask: Ask, nearby: tuple[Cluster, Process], arguments: tuple[str, ...], error: str
) -> None:
    answer = ask(*arguments)
    assert answer.code == 2
    assert error in answer.err


def test_a_role_that_the_scheduler_does_not_have_is_refused_by_the_node(
    ask: Ask, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster(tmp_path) as harness:
        harness.start("g")
        monkeypatch.setenv("INFERQ_SCHEDULER_URL", harness.server.url)
        monkeypatch.setenv("INFERQ_SCHEDULER_TOPIC", TOPIC)
        answer = ask("role", "g", "decode")
    assert answer.code == 2
    assert "nodes of the global scheduler are mixed" in answer.err


def test_a_node_that_is_not_live_is_not_told_anything(ask: Ask, node: FakeNode, store: Any) -> None:
    store.zadd("inferq:default:leases", {node.inc: 1})
    answer = ask("drain", node.name)
    assert answer.code == 2
    assert "n1@here is not live" in answer.err


def test_a_node_that_does_not_answer_is_told(
    ask: Ask, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferq.commands.steering.ANSWER_S", 0.1)
    answer = ask("drain", "n1")
    assert answer.code == 2
    assert "did not answer" in answer.err


def test_a_name_that_fits_several_nodes_is_refused(ask: Ask, node: FakeNode) -> None:
    other = FakeNode(node.topic.settings, "n1@there")
    try:
        answer = ask("drain", "n1")
    finally:
        other.close()
    assert answer.code == 2
    assert "n1 fits several nodes of topic default; known are n1@here, n1@there" in answer.err


def test_hostile_names_do_nothing_to_a_terminal(ask: Ask, store: Any, server: Any) -> None:
    store.hset("inferq:default:nodes", HOSTILE, "{}")
    for name in (HOSTILE, "other"):
        answer = ask("drain", name)
        assert answer.code == 2
        assert is_harmless(answer.err)


def test_a_requeued_letter_runs_on_a_real_node(ask: Ask, nearby: tuple[Cluster, Process]) -> None:
    harness, node = nearby
    assert ask("drain", node.name).code == 0
    with harness.client() as client:
        [handle] = submit(client, "buried", 1, tokens=3)
        undertaker = FakeNode(harness.settings(), "undertaker@test")
        [job] = undertaker.take_exactly(1)
        burial = Burial(job.taken.claim, "rejected", "for a test")
        undertaker.topic.bury(undertaker.name, undertaker.inc, [burial])
        undertaker.topic.set_state(undertaker.name, undertaker.inc, "gone")
        undertaker.close()
        with pytest.raises(RequestFailed, match="for a test"):
            handle.result(LONG_S)
        assert ask("dead", "requeue", "--all").code == 0
        assert ask("resume", node.name).code == 0
        harness.wait(lambda: ask("status", "buried-0", "--json").json["story"] is not None)
    story = ask("status", "buried-0", "--json").json["story"]
    assert (story["finish_reason"], story["tokens"], story["attempt"]) == ("length", 3, 0)
    assert harness.claims_of(node) == 0
    assert ask("dead", "list", "--json").json == []


def test_a_stock_producer_gets_the_answer_of_a_requeued_letter(
    ask: Ask, nearby: tuple[Cluster, Process]
) -> None:
    harness, node = nearby
    assert ask("drain", node.name).code == 0
    url = harness.server.url
    with Celery(broker=url, backend=url, set_as_current=False) as app:
        fields = {"prompt_token_ids": [0], "max_tokens": 3}
        result = app.send_task("inferq.prefill", kwargs=fields, queue=QUEUE)
        undertaker = FakeNode(harness.settings(), "undertaker@test")
        topic, name, inc = undertaker.topic, undertaker.name, undertaker.inc
        [taken] = topic.claim(name, inc, ROOM, reserve="", largest=PLENTY).taken
        topic.adopt(name, inc, [Adoption(taken.claim, result.id, str(app.oid))])
        topic.bury(name, inc, [Burial(taken.claim, "rejected", "for a test")])
        topic.set_state(name, inc, "gone")
        undertaker.close()
        [letter] = ask("dead", "list", "--json").json
        assert letter["request_id"] == result.id
        assert ask("dead", "requeue", letter["id"]).code == 0
        assert ask("resume", node.name).code == 0
        harness.wait(lambda: ask("status", result.id, "--json").json["story"] is not None)
        assert app.AsyncResult(result.id).get(timeout=LONG_S)["token_ids"] == [0, 1, 2]
        app.backend.client.close()


def test_the_number_of_shards_is_changed(ask: Ask, nearby: tuple[Cluster, Process]) -> None:
    harness, _ = nearby
    assert ask("shards", "4").out == "the load tables have 4 shards now\n"
    assert harness.redis.get(f"{PREFIX}shards") == b"4"
    assert ask("shards", "1", "--json").json == {"shards": 1}
