"""``reset``: a topic is emptied, and its producers are told."""

from __future__ import annotations

from typing import Any

import pytest

from inferq import Client, RequestCancelled
from inferq.cluster.topic import Burial
from tests.commands.conftest import Ask
from tests.fake_node import FakeNode
from tests.support import LONG_S


def test_a_topic_is_emptied(
    ask: Ask, node: FakeNode, producer: Client, store: Any, cluster: Any
) -> None:
    running = producer.submit(prompt="p", request_id="runs")
    [job] = node.take_exactly(1)
    producer.submit(prompt="p", request_id="dies")
    [dying] = node.take_exactly(1)
    node.topic.bury(node.name, node.inc, [Burial(dying.taken.claim, "rejected", "x")])
    waiting = producer.submit_many(
        {"prompt": "p", "request_id": f"waits-{n}", "priority": n % 10} for n in range(250)
    )
    store.lpush("default.prefill.lost@node", "{}")
    with Client(cluster, node=node.name) as beside:
        own = beside.submit(prompt="p")
        answer = ask("reset", "--yes", "--json")
        assert answer.json == {"waiting": 252, "running": 1, "letters": 1}
        for handle in (running, *waiting, own):
            with pytest.raises(RequestCancelled, match="its topic was reset"):
                handle.result(LONG_S)
    assert ask("queues", "--json").json == ask("queues", "--json", "--topic", "default").json
    assert sum(queue["length"] for queue in ask("queues", "--json").json) == 0
    assert ask("dead", "list", "--json").json == []
    # The node hears of what it runs, and stays.
    bell = store.lrange(f"inferq:default:bell:{node.inc}", 0, -1)
    assert any("runs" in message for message in bell)
    assert [seen["state"] for seen in ask("nodes", "--json").json] == ["ready"]
    assert job.request_id == "runs"


def test_other_topics_are_left_alone(ask: Ask, producer: Client, store: Any, server: Any) -> None:
    producer.submit(prompt="p")
    assert ask("reset", "--yes", "--topic", "other").code == 0
    assert store.llen("default.prefill") == 1


def test_nobody_is_reset_without_being_asked(ask: Ask, producer: Client, store: Any) -> None:
    producer.submit(prompt="p")
    answer = ask("reset", given="y\n")
    assert answer.code == 2
    assert "give --yes" in answer.err
    assert store.llen("default.prefill") == 1


def test_a_topic_can_be_used_after_it(ask: Ask, producer: Client, node: FakeNode) -> None:
    producer.submit(prompt="p", request_id="a")
    ask("reset", "--yes")
    handle = producer.submit(prompt="p", request_id="b")
    assert node.serve() == 1
    assert handle.result(LONG_S).text == "1 2 3 "
