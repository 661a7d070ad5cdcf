"""Requests that are too large for a node, or for all."""

from __future__ import annotations

import pytest

from inferq import RequestFailed
from tests.cluster_harness import Cluster
from tests.faults.answers import check_answers, submit


def test_a_request_too_large_for_every_node_fails_at_once(cluster: Cluster) -> None:
    cluster.start("a", "b", model_len=1000)
    with cluster.client() as client:
        with pytest.raises(RequestFailed) as failed:
            submit(client, "large", 1, tokens=2000)[0].result(timeout=60)
        assert failed.value.error_code == "too_large"
        check_answers(submit(client, "r", 5))


def test_a_request_too_large_for_one_node_runs_at_another(cluster: Cluster) -> None:
    # In this order: a node learns what others can hold when it renews its lease.
    (large,) = cluster.start("b", model_len=1000)
    (small,) = cluster.start("a", model_len=100)
    with cluster.client(node=small.name) as client:
        handles = submit(client, "large", 3, tokens=300, pace_ms=1)
        small_ones = submit(client, "r", 50)
        check_answers(handles, 300)
        check_answers(small_ones)
    assert {e.pid for e in cluster.journal("start") if "large" in e.request_id} == {large.pid}


def test_small_requests_pass_one_that_does_not_fit_and_it_is_not_starved(
    cluster: Cluster,
) -> None:
    # 40 blocks of 16 tokens: the large one needs all, the small ones 2 each.
    cluster.start("a", blocks=40, slots=8)
    with cluster.client() as client:
        first = submit(client, "first", 2, tokens=20, pace_ms=50)
        cluster.wait(lambda: len(cluster.starts()) == 2)
        large = client.submit(request_id="large", prompt_token_ids=[1, *([0] * 600)], max_tokens=20)
        small = submit(client, "r", 150, tokens=20, pace_ms=10)
        check_answers([*first, large, *small])
    order = [entry.request_id for entry in cluster.journal("start")]
    place = order.index("large")
    assert place > 2, "nothing passed it"
    assert place < len(order) - 1, "everything passed it"
