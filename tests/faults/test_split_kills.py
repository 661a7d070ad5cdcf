"""Prefill and decode nodes that are killed, wherever their requests are at that moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inferq import RequestFailed
from tests.cluster_harness import DECODE_QUEUE, PREFIX, Cluster
from tests.faults.answers import check_answers, submit
from tests.faults.engine import BROKEN, POISON
from tests.faults.phases import Readers, at, check_balanced, wait_at, wait_queued_for_decode

Make = Callable[..., Cluster]
TOKENS = 20


@pytest.fixture
def cluster(make_split: Make) -> Cluster:
    return make_split()


def test_a_prefill_node_killed_while_it_computes(cluster: Cluster) -> None:
    victim, other = cluster.start("p1", "p2", role="prefill", slots=4)
    (decoder,) = cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", 8, prefill_ms=1500)
        wait_at(cluster, victim, "prefill", 4)
        victim.kill()
        check_answers(handles)
    assert max(cluster.starts("prefill").values()) == 2
    cluster.check_clean(other, decoder)


def test_a_prefill_node_killed_while_the_kv_cache_leaves_it(cluster: Cluster) -> None:
    victim, other = cluster.start("p1", "p2", role="prefill", slots=4)
    (decoder,) = cluster.start("d", role="decode")
    with cluster.client() as client:
        readers = Readers(submit(client, "r", 8, export_ms=1500))
        readers.read(1)  # the first token does not wait for the KV cache
        assert not cluster.journal("fetch")
        victim.kill()
        readers.check()
    assert max(cluster.starts("prefill").values()) == 2
    check_balanced(cluster, other, decoder)
    cluster.check_clean(other, decoder)


def test_a_prefill_node_killed_while_nobody_has_room_to_decode(cluster: Cluster) -> None:
    (victim,) = cluster.start("p1", role="prefill")
    with cluster.client() as client:
        handles = submit(client, "r", 8)
        wait_queued_for_decode(cluster, 8)
        victim.kill()
        nodes = [*cluster.start("p2", role="prefill"), *cluster.start("d", role="decode")]
        check_answers(handles)
    assert set(cluster.starts("prefill").values()) == {2}
    assert set(cluster.starts("fetch").values()) == {1}
    cluster.check_clean(*nodes)


def test_a_decode_node_killed_while_it_waits_for_the_other_half(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill", meet_s=60.0)
    (victim,) = cluster.start("d1", role="decode", meet_s=60.0)
    with cluster.client() as client:
        # Concurrent: the victim waits meanwhile, and the halves here outlive the next attempt.
        handles = submit(client, "r", 4, prefill_ms=4000)
        wait_at(cluster, prefiller, "prefill", 4)
        victim.kill()
        (other,) = cluster.start("d2", role="decode")
        check_answers(handles)
    check_balanced(cluster, prefiller, other)
    cluster.check_clean(prefiller, other)


def test_a_decode_node_killed_in_the_middle_of_its_answers(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill")
    victim, other = cluster.start("d1", "d2", role="decode", slots=8)
    with cluster.client() as client:
        readers = Readers(submit(client, "r", 12, tokens=100, pace_ms=25))
        cluster.wait(lambda: len(cluster.starts("fetch")) == 12)
        readers.read(3)
        lost = len(at(cluster, victim, "fetch") + at(cluster, victim, "decode"))
        victim.kill()
        readers.check(100)
    assert lost > 0
    # What the dead node had fetched is prefilled again, and only that.
    assert sum(count - 1 for count in cluster.starts("prefill").values()) == lost
    cluster.check_clean(prefiller, other)


def test_a_mixed_node_killed_with_requests_in_both_phases(cluster: Cluster) -> None:
    prefiller, decoder = (
        cluster.start(role, role=role, slots=3)[0] for role in ("prefill", "decode")
    )
    (victim,) = cluster.start("mixed", slots=6)
    with cluster.client() as client:
        handles = submit(client, "r", 30, tokens=40, pace_ms=25, prefill_ms=200)
        cluster.wait(
            lambda: (
                {"start", "decode"} <= {e.what for e in cluster.journal() if e.pid == victim.pid}
            )
        )
        victim.kill()
        check_answers(handles, 40)
    cluster.check_clean(prefiller, decoder)


def test_all_decode_nodes_killed_and_new_ones_started(cluster: Cluster) -> None:
    (prefiller,) = cluster.start("p", role="prefill")
    victims = cluster.start("d1", "d2", role="decode", slots=4)
    with cluster.client() as client:
        handles = submit(client, "r", 20, tokens=60, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts("fetch")) >= 8)
        for victim in victims:
            victim.kill()
        more = submit(client, "s", 10)
        cluster.wait(lambda: cluster.waiting_anywhere(DECODE_QUEUE) > 8)
        nodes = cluster.start("d3", "d4", role="decode")
        check_answers(handles, 60)
        check_answers(more)
    check_balanced(cluster, prefiller, *nodes)
    cluster.check_clean(prefiller, *nodes)


def test_a_request_that_kills_whoever_prefills_it_is_given_up(make_split: Make) -> None:
    cluster = make_split(cluster={"max_attempts": 2})
    cluster.start("p1", "p2", "p3", role="prefill")
    (decoder,) = cluster.start("d", role="decode")
    with cluster.client() as client:
        poison = client.submit(prompt_token_ids=[POISON], max_tokens=3)
        with pytest.raises(RequestFailed) as failed:
            poison.result(timeout=60)
        assert failed.value.error_code == "attempts"
        check_answers(submit(client, "r", 5))
    assert decoder.is_alive


def test_a_prefill_that_fails_ends_its_request_and_leaves_nothing(cluster: Cluster) -> None:
    nodes = cluster.start("p", role="prefill") + cluster.start("d", role="decode")
    with cluster.client() as client:
        handles = submit(client, "r", 8, pace_ms=BROKEN)
        for handle in handles:
            with pytest.raises(RequestFailed) as failed:
                handle.result(timeout=60)
            # When both halves run at once, the failure may be the other half's: it is tried again.
            code = {"sequential": "engine_error", "concurrent": "attempts"}[cluster.family]
            assert failed.value.error_code == code
        cluster.redis.delete(f"{PREFIX}dead")
        cluster.check_clean(*nodes)
        check_answers(submit(client, "s", 8))
    check_balanced(cluster, *nodes)
