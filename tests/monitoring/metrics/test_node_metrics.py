"""What a worker process tells of itself, as a scraper reads it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

import pytest
from celery import Celery

from inferq import RequestCancelled, RequestFailed
from inferq.monitoring.metrics.catalogue import NODE
from tests.cluster_harness import QUEUE, SHORT_LEASE_S, Cluster
from tests.faults.answers import check_answers, submit
from tests.monitoring.metrics.conftest import watched
from tests.monitoring.metrics.scrape import Scrape, get, scrape

ENDS = "inferq_requests_total"


def test_requests_are_counted_by_how_they_ended(cluster: Cluster) -> None:
    node, port = watched(cluster, "a", slots=4)
    cluster.ready(node)
    with cluster.client() as client:
        check_answers(submit(client, "r", 5, tokens=10, pace_ms=1), 10)
        too_large = client.submit(prompt="x", max_tokens=1_000_000)
        with pytest.raises(RequestFailed):
            too_large.result(timeout=60)
        [long] = submit(client, "long", 1, tokens=1000, pace_ms=50)
        cluster.wait(lambda: scrape(port).get("inferq_queue_wait_seconds_count") == 6)
        long.cancel()
        with pytest.raises(RequestCancelled):
            long.result(timeout=60)
    # Of a request by a client that lives, client and node may be first to say that it expired.
    with Celery(broker=cluster.server.url) as producer:
        late = {"prompt_token_ids": [50], "max_tokens": 1000, "deadline": time.time() + 1}
        producer.send_task("inferq.prefill", kwargs=late, queue=QUEUE)
    cluster.wait(lambda: scrape(port).get(ENDS, end="expired") == 1)
    seen = scrape(port)
    assert seen.get(ENDS, end="finished", reason="length") == 5
    assert seen.get(ENDS, end="cancelled") == 1
    assert seen.get(ENDS, end="failed") == 1
    assert seen.get("inferq_taken_requests_total", source="queue") >= 7
    assert seen.get("inferq_request_seconds_count") == 5
    assert seen.get("inferq_time_per_output_token_seconds_count") == 5
    begun = seen.get("inferq_queue_wait_seconds_count")
    assert begun in (6, 7), "the late one may have had no token"
    assert seen.get("inferq_time_to_first_token_seconds_bucket", le="+Inf") == begun
    assert seen.get("inferq_prompt_tokens_total") == begun
    assert seen.get("inferq_output_tokens_total") >= 51
    assert seen.get("inferq_kv_blocks", state="used") == 0
    assert seen.get("inferq_slots", state="free") == 4
    assert {s.labels["node"] for s in seen.samples if s.name.startswith("inferq_")} == {node.name}


def test_what_runs_shows(cluster: Cluster) -> None:
    node, port = watched(cluster, "a", slots=4)
    cluster.ready(node)
    with cluster.client() as client:
        handles = submit(client, "r", 3, tokens=2000, pace_ms=20)
        cluster.wait(lambda: scrape(port).get("inferq_slots", state="used") == 3)
        seen = scrape(port)
        assert seen.get("inferq_running_requests") == 3
        assert seen.get("inferq_kv_blocks", state="used") == 3 * -(-2001 // 16)
        for handle in handles:
            handle.cancel()


def test_metrics_are_in_the_catalogue(cluster: Cluster) -> None:
    node, port = watched(cluster, "a")
    cluster.ready(node)
    known = {metric.name for metric in NODE}
    ours = {name for name in scrape(port).names if name.startswith("inferq_")}
    bare = {name.removesuffix("_bucket").removesuffix("_count") for name in ours}
    assert {name.removesuffix("_sum") for name in bare} <= known


def test_a_request_that_is_stolen_counts_as_such(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    [owner] = cluster.start("a", slots=1)
    with cluster.client(node=owner.name) as client:
        handles = submit(client, "r", 12, tokens=20, pace_ms=20)
        thief, port = watched(cluster, "b", slots=4)
        cluster.ready(thief)
        check_answers(handles, 20)
    assert scrape(port).get("inferq_taken_requests_total", source="stolen") > 0


def test_what_a_killed_node_had_counts_as_recovered_and_retried(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(lease_s=SHORT_LEASE_S)
    [victim] = cluster.start("a", slots=4)
    with cluster.client() as client:
        handles = submit(client, "r", 4, tokens=40, pace_ms=25)
        cluster.wait(lambda: len(cluster.starts()) == 4)
        heir, port = watched(cluster, "b", slots=8)
        cluster.ready(heir)
        victim.kill()
        check_answers(handles, 40)
    seen = scrape(port)
    assert seen.get("inferq_recoveries_total") == 1
    assert seen.get("inferq_recovered_requests_total") == 4
    assert seen.get("inferq_retried_requests_total") == 4


def test_a_lost_lease_is_counted(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(lease_s=SHORT_LEASE_S)
    sleeper, port = watched(cluster, "a")
    cluster.ready(sleeper)
    other = cluster.start("b")[0]
    before = cluster.incarnation(sleeper)
    sleeper.freeze()
    cluster.wait(lambda: cluster.incarnation(sleeper) != before or _is_gone(cluster, sleeper.name))
    sleeper.thaw()
    cluster.wait(lambda: scrape(port).get("inferq_lost_leases_total") == 1)
    assert other.is_alive


def test_a_lease_that_cannot_be_renewed_is_counted_and_the_outbox_lags(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(cluster={"redis_timeout_s": 0.3})
    node, port = watched(cluster, "a")
    cluster.ready(node)
    with cluster.client() as client:
        handles = submit(client, "r", 3, tokens=30, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) == 3)
        cluster.server.freeze()
        cluster.wait(lambda: len(cluster.journal("end")) == 3)
        cluster.wait(lambda: scrape(port).get("inferq_outbox_ends") == 3)
        cluster.wait(lambda: scrape(port).get("inferq_outbox_oldest_seconds") > 0.5)
        cluster.wait(lambda: scrape(port).get("inferq_missed_renewals_total") > 0)
        cluster.server.thaw()
        check_answers(handles, 30)
    cluster.wait(lambda: scrape(port).get("inferq_outbox_ends") == 0)
    assert scrape(port).get("inferq_outbox_oldest_seconds") == 0


def test_scrapes_during_a_shutdown_are_answered_or_refused(cluster: Cluster) -> None:
    node, port = watched(cluster, "a", slots=2)
    cluster.ready(node)
    with cluster.client() as client:
        handles = submit(client, "r", 2, tokens=60, pace_ms=20)
        cluster.wait(lambda: len(cluster.starts()) == 2)
        node.term()
        answered = 0
        while True:
            try:
                status, _, body = get(port)
            except ConnectionRefusedError:
                break
            assert status == 200
            assert Scrape(body).names
            answered += 1
        check_answers(handles, 60)
    assert answered > 0
    assert node.wait() == 0
    assert "Traceback" not in node.log()


def test_a_hostile_name_of_a_node_is_escaped(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    name = 'a"b\\c}d{e'
    node, port = watched(cluster, "x", "-n", f"{name}@test")
    cluster.wait(lambda: "ready" in str(cluster.execute("HVALS inferq:faults:states")))
    assert node.is_alive
    labels = {s.labels["node"] for s in scrape(port).samples if s.name.startswith("inferq_")}
    assert labels == {f"{name}@test"}


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]])
def test_a_node_ends_while_a_scraper_holds_a_connection_open(
    cluster: Cluster, signals: list[signal.Signals]
) -> None:
    node, port = watched(cluster, "a")
    cluster.ready(node)
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.send(b"GET /metrics HTTP/1.1\r\n")
        for number in signals:
            os.kill(node.pid, number)
        node.wait()
    assert not node.is_alive


def _is_gone(cluster: Cluster, name: str) -> bool:
    state = cluster.redis.hget("inferq:faults:states", name)
    return state == b"gone"


def test_a_port_that_is_taken_ends_the_start_with_a_clear_error(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = cluster.node("a", options=("--setting", f"monitoring.metrics_port={port}"))
        assert node.wait() != 0
    assert f"Error: monitoring.metrics_port={port}" in node.log()
    assert "Traceback" not in node.log()


def test_a_node_that_waits_for_redis_is_there_to_be_scraped(cluster: Cluster) -> None:
    cluster.server.freeze()
    node, port = watched(cluster, "a")
    cluster.wait(lambda: _answers(port) or not node.is_alive)
    seen = scrape(port)
    assert seen.get("inferq_node_info", node=node.name, role="mixed") == 1
    assert "inferq_requests_total" not in seen.names
    cluster.server.thaw()
    cluster.ready(node)
    cluster.wait(lambda: ENDS in scrape(port).names)


def _answers(port: int) -> bool:
    try:
        return get(port)[0] == 200
    except OSError:
        return False


def test_dead_letters_count_by_reason(cluster: Cluster) -> None:
    node, port = watched(cluster, "a")
    cluster.ready(node)
    cluster.redis.lpush(QUEUE, '{"body": "x", "headers": {}, "properties": {}}')
    letters = "inferq_dead_letters_total"
    cluster.wait(lambda: scrape(port).get(letters, reason="malformed") == 1)
    assert scrape(port).get(letters) == 1
