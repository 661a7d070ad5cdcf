"""The web service, in front of real nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.cluster_harness import Cluster
from tests.examples.conftest import environment
from tests.examples.web import Service, events
from tests.redis_server import RedisServer

#: Longer than any test, at the speed of the engine.
LONG = {"prompt": "a", "max_tokens": 4096}


@pytest.fixture(scope="module")
def web(simulated: Cluster) -> Iterator[Service]:
    service = Service(simulated.folder, environment(simulated))
    yield service
    service.close()


@pytest.fixture(scope="module")
def lonely(simulated: Cluster) -> Iterator[Service]:
    """In a topic without nodes, in which one request may wait."""
    more = {"INFERQ_SCHEDULER_TOPIC": "lonely", "INFERQ_CLUSTER__MAX_WAITING": "1"}
    service = Service(simulated.folder, environment(simulated, **more), "lonely")
    yield service
    service.close()


def is_idle(cluster: Cluster) -> bool:
    """Whether all nodes say that their engines have nothing, and none has claims."""
    nodes = [node for node in cluster.processes if node.name.endswith("@test")]
    return all(cluster.is_empty(node) for node in nodes) and not cluster.leftovers()


def test_an_answer_is_streamed(web: Service) -> None:
    with web.http.stream("POST", "/generate", json={"prompt": "Hello", "max_tokens": 8}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        *tokens, (last, end) = events(answer)
    assert [kind for kind, _ in tokens] == ["token"] * len(tokens)
    assert sum(len(data["token_ids"]) for _, data in tokens) == 8
    assert (last, end) == ("end", {"finish_reason": "length"})


def test_tokens_come_while_the_engine_computes_and_who_leaves_ends_it(
    web: Service, simulated: Cluster
) -> None:
    with web.http.stream("POST", "/generate", json=LONG) as answer:
        told = events(answer)  # to be kept: with it goes the connection
        kind, data = next(told)
        assert (kind, bool(data["token_ids"])) == ("token", True)
        simulated.wait(lambda: not is_idle(simulated))
    simulated.wait(lambda: is_idle(simulated))


def test_places_are_bounded_and_who_leaves_while_it_waits_takes_it_back(
    lonely: Service, simulated: Cluster
) -> None:
    with simulated.client(scheduler_topic="lonely") as other:
        with lonely.leaving(LONG):
            simulated.wait(lambda: simulated.waiting("lonely.prefill") == 1)
            [key] = simulated.redis.scan_iter("inferq:lonely:req:*")
            request_id = key.decode().rpartition(":")[2]
            assert other.status(request_id).state == "queued"
            refused = lonely.generate(LONG)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        simulated.wait(lambda: other.status(request_id).state != "queued")


def test_a_request_that_is_cancelled_elsewhere_ends_its_stream(
    web: Service, simulated: Cluster
) -> None:
    with web.http.stream("POST", "/generate", json=LONG) as answer:
        stream = events(answer)
        next(stream)
        with simulated.client() as other:
            other.cancel(answer.headers["x-request-id"])
        *_, (kind, data) = stream
    assert (kind, data["code"]) == ("error", "cancelled")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 5000}, "max_tokens"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        ({"prompt": "a", "priority": 0}, "priority"),
        ([], "body"),
    ],
)
def test_a_wrong_field_is_named(web: Service, body: Any, field: str) -> None:
    refused = web.generate(body)
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert (error["code"], error["field"]) == ("invalid_request", field)
    assert error["message"].startswith(f"{field}: ")


def test_a_prompt_is_not_sent_back(web: Service) -> None:
    refused = web.generate({"prompt": "secret" * 100_000})
    assert refused.status_code == 422
    assert "secret" not in refused.text


def test_what_the_engine_can_never_hold_is_a_wrong_request(web: Service) -> None:
    refused = web.generate({"prompt": "word " * 30_000, "max_tokens": 8})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "too_large")


def test_health_says_whether_nodes_are_there(web: Service, lonely: Service) -> None:
    well = web.http.get("/health")
    assert (well.status_code, well.json()["free_slots"] > 0) == (200, True)
    unwell = lonely.http.get("/health")
    assert (unwell.status_code, unwell.json()["error"]["code"]) == (503, "scheduler_unavailable")


def test_redis_away_is_said(simulated: Cluster) -> None:
    server = RedisServer()
    more = {
        "INFERQ_SCHEDULER_URL": f"redis://127.0.0.1:{server.port}/0",
        "INFERQ_CLUSTER__REDIS_TIMEOUT_S": "0.5",
    }
    with ExitStack() as stack:
        try:
            service = Service(simulated.folder, environment(simulated, **more), "cut-off")
            stack.callback(service.close)
        finally:
            server.stop()
        for answer in (service.generate(LONG), service.http.get("/health")):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert "Redis does not answer" in answer.json()["error"]["message"]
