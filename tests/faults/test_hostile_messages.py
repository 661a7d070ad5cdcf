"""Anybody may write into a queue: what is no request becomes a dead letter, and the rest runs."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from celery.result import AsyncResult

from tests.cluster_harness import PREFIX, QUEUE, Cluster
from tests.faults.answers import check_answers, submit
from tests.faults.hostile import hostile_messages, stock_message

COUNT = 10_000


def test_ten_thousand_hostile_messages_do_not_end_a_worker(cluster: Cluster) -> None:
    trap = cluster.folder / "trap"
    messages = hostile_messages(COUNT, str(trap))
    for first in range(0, COUNT, 500):
        cluster.redis.lpush(QUEUE, *messages[first : first + 500])
    (node,) = cluster.start("a")
    with cluster.client() as client:
        check_answers(submit(client, "r", 20, tokens=5, pace_ms=0), 5)
    cluster.wait(lambda: cluster.waiting() == 0 and cluster.claims_of(node) == 0)
    assert node.is_alive
    assert not trap.exists(), "a pickle was loaded"
    # Some are by chance good enough to run; none of these is anybody's.
    answered = len(cluster.starts()) - 20
    assert answered < COUNT / 50
    letters = cluster.dead()
    assert len(letters) >= COUNT - answered - 100, Counter(letter["reason"] for letter in letters)
    assert all(letter["reason"] and letter["detail"] for letter in letters)
    assert "Unrecoverable" not in node.log()


def test_a_forged_envelope_does_not_touch_the_request_whose_id_it_carries(
    cluster: Cluster,
) -> None:
    (node,) = cluster.start("a")
    with cluster.client() as client:
        handles = submit(client, "r", 1, tokens=100, pace_ms=10)
        cluster.wait(lambda: cluster.starts() == {"r-0": 1})
        raw = json.dumps(stock_message("r-0")).encode()
        for number in (0, 1, 2, 3, 5):
            cluster.redis.rpush(
                QUEUE, b'{"inferq": [%d, 0, 1, 2, 0, 0, "r-0"], ' % number + raw[1:]
            )
        check_answers(handles, 100)
    cluster.wait(lambda: cluster.waiting() == 0 and cluster.claims_of(node) == 0)
    assert cluster.starts() == {"r-0": 1}
    assert {letter["reason"] for letter in cluster.dead()} == {"duplicate"}


def test_a_message_that_is_wrong_for_the_task_fails_at_its_producer(cluster: Cluster) -> None:
    cluster.start("a")
    with cluster.client() as client:
        wrong: list[dict[str, Any]] = [
            {},
            {"prompt_token_ids": []},
            {"prompt_token_ids": [1], "max_tokens": -1},
            {"prompt_token_ids": [1], "unknown": 1},
            {"prompt": "a", "prompt_token_ids": [1]},
        ]
        for n, kwargs in enumerate(wrong):
            cluster.redis.lpush(QUEUE, json.dumps(stock_message(f"wrong-{n}", kwargs)))
        for n in range(len(wrong)):
            with pytest.raises(Exception, match=r".+"):
                AsyncResult(f"wrong-{n}", app=client.app).get(timeout=60)


def test_a_stock_producers_message_runs_and_survives_its_node(hasty_cluster: Cluster) -> None:
    cluster = hasty_cluster
    victim, _ = cluster.start("a", "b", slots=1)
    with cluster.client() as client:
        for n in range(2):
            kwargs = {"prompt_token_ids": [20], "max_tokens": 60}
            cluster.redis.lpush(QUEUE, json.dumps(stock_message(f"stock-{n}", kwargs)))
        cluster.wait(lambda: len(cluster.starts()) == 2)
        victim.kill()
        for n in range(2):
            answer = AsyncResult(f"stock-{n}", app=client.app).get(timeout=60)
            assert answer["token_ids"] == list(range(60))
    assert max(cluster.starts().values()) > 1
    assert cluster.redis.keys(f"{PREFIX}dead") == []
