"""What an operator does from the pages, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from inferq import Client
from inferq.errors import RequestCancelled
from tests.fake_node import FakeNode
from tests.monitoring.flower.dashboard import Dashboard
from tests.monitoring.flower.support import bury_all
from tests.redis_server import RedisServer

FIELDS = {"drain": "node", "resume": "node", "cancel": "id", "requeue": "id", "drop": "id"}


def letter_of(dashboard: Dashboard) -> str:
    said = dashboard.wait_for(lambda told: bool(told["letters"]))
    return str(said["letters"][0]["id"])


def test_a_waiting_request_is_cancelled_and_its_producer_told(
    dashboard: Dashboard, producer: Client
) -> None:
    handle = producer.submit(prompt="p", request_id='r"1/<b>')
    answer = dashboard.act("cancel", id='r"1/<b>')
    assert answer.status_code == 200
    with pytest.raises(RequestCancelled, match="operator"):
        handle.result(60)


def test_a_running_request_is_cancelled_at_its_node(
    dashboard: Dashboard, node: FakeNode, producer: Client
) -> None:
    handle = producer.submit(prompt="p", request_id="r1")
    node.take_exactly(1)
    answer = dashboard.act("cancel", id="r1")
    assert (answer.status_code, answer.json()["message"]) == (200, "its node is told to stop it")
    with pytest.raises(RequestCancelled):
        handle.result(60)


def test_who_has_ended_cannot_be_cancelled(dashboard: Dashboard) -> None:
    answer = dashboard.act("cancel", id="nobody")
    assert answer.status_code == 409
    assert "no live request" in answer.json()["message"]


def test_a_dead_letter_is_requeued_and_answered(
    dashboard: Dashboard, node: FakeNode, producer: Client
) -> None:
    producer.submit(prompt="p", request_id="r1")
    bury_all(node)
    answer = dashboard.act("requeue", id=letter_of(dashboard))
    assert answer.status_code == 200, answer.text
    [job] = node.take()
    assert job.request_id == "r1"
    dashboard.wait_for(lambda told: told["letters"] == [] and told["totals"]["letters"] == 0)


def test_a_letter_that_no_node_can_read_is_not_requeued(
    dashboard: Dashboard, node: FakeNode, server: RedisServer
) -> None:
    with server.client() as client:
        client.lpush("default.prefill", "no json")
    bury_all(node)
    answer = dashboard.act("requeue", id=letter_of(dashboard))
    assert answer.status_code == 409
    assert "no node can read it" in answer.json()["message"]


def test_a_dead_letter_is_dropped_once(
    dashboard: Dashboard, node: FakeNode, producer: Client
) -> None:
    producer.submit(prompt="p", request_id="r1")
    bury_all(node)
    letter = letter_of(dashboard)
    assert dashboard.act("drop", id=letter).status_code == 200
    assert dashboard.act("drop", id=letter).status_code == 409
    dashboard.wait_for(lambda told: told["letters"] == [])


def test_a_node_that_nobody_knows_is_not_asked(dashboard: Dashboard, node: FakeNode) -> None:
    for action in ("drain", "resume"):
        answer = dashboard.act(action, node="nobody@nowhere")
        assert answer.status_code == 404
        assert "no node of this topic" in answer.text


def test_a_node_that_does_not_answer_is_said_not_to(dashboard: Dashboard, node: FakeNode) -> None:
    answer = dashboard.act("drain", node=node.name)
    assert answer.status_code == 504
    assert "does not answer" in answer.json()["message"]


@pytest.mark.parametrize("action", FIELDS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"node": 7, "id": 7}',
        b'{"node": "", "id": ""}',
        b'{"node": null, "id": null}',
        b"[" * 10_000,
        b'{"node": "%s", "id": "%s"}' % (b"x" * 2000, b"x" * 2000),
        b" " * 20_000 + b'{"node": "n", "id": "n"}',
        b"\xff",
    ],
)
def test_a_body_that_makes_no_sense_is_named(
    dashboard: Dashboard, action: str, body: bytes
) -> None:
    with dashboard.user() as user:
        answer = user.post(f"/api/inferq/{action}", content=body)
    assert answer.status_code == 400
    assert answer.text.startswith(f"{FIELDS[action]}: a JSON object")


@pytest.mark.parametrize("odd", ["\ud800", "n\udcff@here", "n\x00", "*", "-1", "0-0", "<script>"])
def test_odd_names_and_ids_are_unknown(dashboard: Dashboard, node: FakeNode, odd: Any) -> None:
    assert dashboard.act("drain", node=odd).status_code == 404
    assert dashboard.act("cancel", id=odd).status_code == 409
    assert dashboard.act("drop", id=odd).status_code == 409
    assert dashboard.act("requeue", id=odd).status_code == 409


def test_what_was_done_is_noted_with_who_did_it(dashboard: Dashboard, node: FakeNode) -> None:
    dashboard.act("cancel", id="noted\nrequest")
    assert "cancel 'noted\\nrequest' asked for by 'ann'" in dashboard.process.log()
