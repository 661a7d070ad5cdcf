"""Requests from a producer to a node and back, over a real server."""

from __future__ import annotations

import threading
import time

import pytest
from celery import Celery

from inferq import (
    Client,
    DuplicateRequest,
    InvalidRequest,
    QueueFull,
    RequestCancelled,
    RequestExpired,
    RequestFailed,
    Settings,
    SettingsError,
    UnknownRequest,
)
from inferq.cluster.topic import Burial
from inferq.messages import Request
from tests.fake_node import FakeNode, output_of
from tests.redis_server import RedisServer, cluster_settings
from tests.support import LONG_S, wait_until


def test_a_request_goes_to_a_node_and_its_answer_comes_back(
    producer: Client, node: FakeNode
) -> None:
    handle = producer.submit(prompt="hello", max_tokens=3, seed=7, request_id="r")
    [job] = node.take_exactly(1)
    assert job.fields["prompt"] == "hello"
    assert Request.parse({**job.fields, "request_id": "r"}).seed == 7
    assert job.request_id == job.taken.request_id == "r"
    node.answer(job, [5, 6, 7])
    result = handle.result(LONG_S)
    assert (result.token_ids, result.text) == ((5, 6, 7), "5 6 7 ")
    wait_until(lambda: producer.counts().held == producer.counts().running == 0)


def test_a_message_is_one_of_kombu(producer: Client, node: FakeNode) -> None:
    producer.submit(prompt_token_ids=[1, 2], max_tokens=3, priority=4, request_id="r")
    [job] = node.take_exactly(1)
    message = job.message
    assert message["content-encoding"] == "binary"
    assert message["headers"]["task"] == "inferq.prefill"
    assert message["headers"]["id"] == message["properties"]["correlation_id"] == "r"
    assert message["properties"]["body_encoding"] == "base64"
    assert message["properties"]["priority"] == 4
    assert message["properties"]["delivery_info"]["routing_key"] == "default.prefill"
    assert (job.taken.prompt_tokens, job.taken.max_tokens) == (2, 3)


def test_kombu_reads_what_a_producer_wrote(producer: Client) -> None:
    producer.submit(prompt="hello", request_id="r")
    url = f"redis://127.0.0.1:{producer.settings.scheduler_port}/0"
    stock = Celery("stock", broker=url, set_as_current=False)
    with stock.connection_for_read() as connection:
        queue = connection.SimpleQueue("default.prefill", no_ack=True, accept=["msgpack"])
        message = queue.get(timeout=LONG_S)
        args, fields, _ = message.payload
    assert (args, fields["prompt"]) == ([], "hello")
    assert message.headers["id"] == "r"


def test_outputs_stream_as_they_come(producer: Client, node: FakeNode) -> None:
    stream = producer.stream(prompt="p")
    [job] = node.take_exactly(1)
    for index in range(3):
        node.send(job, [output_of(job, index, [index])])
        assert next(stream).token_ids == (index,)
    node.send(job, [output_of(job, 3, [3], last=True)])
    assert [output.token_ids for output in stream] == [(3,)]


def test_a_batch_of_two_thousand_is_answered_in_full(producer: Client, node: FakeNode) -> None:
    handles = producer.submit_many({"prompt": f"{n}"} for n in range(2000))
    assert producer.counts().waiting == 2000
    jobs = node.take_exactly(2000)
    assert [job.fields["prompt"] for job in jobs] == [f"{n}" for n in range(2000)]
    for job in jobs:
        node.answer(job)
    assert all(handle.result(LONG_S).token_ids == (1, 2, 3) for handle in handles)
    assert producer.counts().held == 0


def test_requests_are_taken_by_priority(producer: Client, node: FakeNode) -> None:
    for name, priority in [("low", 9), ("a", 3), ("b", 3), ("high", 0)]:
        producer.submit(prompt="p", request_id=name, priority=priority)
    assert [job.request_id for job in node.take()] == ["high", "a", "b", "low"]


def test_an_id_with_signs_of_all_kinds_makes_its_way(producer: Client, node: FakeNode) -> None:
    names = ['"quoted"', "100%", "%41", "a/b?c=d", "{}[],", "~`'\\"]
    handles = [producer.submit(prompt="p", request_id=name) for name in names]
    assert node.serve() == len(names)
    assert [handle.result(LONG_S).request_id for handle in handles] == names


def test_an_id_in_use_by_another_producer_is_refused_and_nothing_is_held(
    cluster: Settings, producer: Client, node: FakeNode
) -> None:
    with Client(cluster) as other:
        first = other.submit(prompt="p", request_id="a%b")
        with pytest.raises(DuplicateRequest, match="a%b"):
            producer.submit_many({"prompt": "q", "request_id": n} for n in ("x", "a%b", "y"))
        assert producer.counts().held == 0
        assert producer.counts().waiting == 1
        assert node.serve() == 1
        assert first.result(LONG_S)


def test_a_duplicate_behind_many_others_takes_them_back(
    cluster: Settings, producer: Client, node: FakeNode
) -> None:
    with Client(cluster) as other:
        other.submit(prompt="p", request_id="1200")
        with pytest.raises(DuplicateRequest, match="1200"):
            producer.submit_many({"prompt": "q", "request_id": f"{n}"} for n in range(1201))
        assert producer.counts().held == 0
        wait_until(lambda: {job.request_id for job in node.take()} <= {"1200"})


def test_an_id_of_this_producer_is_refused_without_asking(producer: Client) -> None:
    producer.submit(prompt="p", request_id="r")
    with pytest.raises(DuplicateRequest):
        producer.submit(prompt="p", request_id="r")
    assert producer.counts().held == 1


def test_a_full_queue_names_those_that_do_not_fit(server: RedisServer) -> None:
    settings = cluster_settings(server.port, cluster={"max_waiting": 3})
    with Client(settings) as producer:
        producer.submit(prompt="p", request_id="a")
        with pytest.raises(QueueFull, match=r"cluster\.max_waiting is 3") as caught:
            producer.submit_many({"prompt": "p", "request_id": name} for name in "bcde")
        assert (caught.value.accepted, caught.value.rejected) == (("b", "c"), ("d", "e"))
        assert producer.counts().held == 3
        assert producer.handle("c")
        with pytest.raises(UnknownRequest):
            producer.handle("d")


def test_a_message_that_no_node_would_read_is_refused(server: RedisServer) -> None:
    settings = cluster_settings(server.port, limits={"max_message_bytes": 5000})
    with Client(settings) as producer:
        with pytest.raises(InvalidRequest, match=r"max_message_bytes is 5000") as caught:
            producer.submit(messages=[{"role": "user", "content": "x" * 5000}])
        assert caught.value.field == "messages"
        assert producer.counts().held == producer.counts().waiting == 0
        producer.submit(prompt="x" * 2000)


def test_a_request_for_one_node_goes_into_its_queue(
    cluster: Settings, node: FakeNode, server: RedisServer
) -> None:
    with Client(cluster, node=node.name) as beside:
        handle = beside.submit(prompt="p")
        with server.client() as redis:
            assert redis.llen(f"default.prefill.{node.name}") == 1
        assert beside.counts().waiting == 1
        node.serve()
        assert handle.result(LONG_S)


def test_a_node_can_be_named_only_where_there_are_nodes() -> None:
    with pytest.raises(SettingsError, match="node="):
        Client(Settings(scheduler_name="local"), node="n1@here").__enter__()


def test_counts_are_those_of_the_live_nodes(producer: Client, node: FakeNode) -> None:
    producer.submit_many({"prompt": "p"} for _ in range(3))
    counts = producer.counts()
    assert (counts.held, counts.waiting, counts.running, counts.unread) == (3, 3, 0, 0)
    assert (counts.total_blocks, counts.free_blocks) == (100, 90)
    assert (counts.total_slots, counts.free_slots) == (8, 7)
    jobs = node.take_exactly(3)
    assert (producer.counts().waiting, producer.counts().running) == (0, 3)
    node.answer(jobs[0])
    wait_until(lambda: producer.counts().unread == 1)
    assert producer.counts().running == 2
    node.topic.set_state(node.name, node.inc, "gone")
    assert producer.counts().total_slots == 0


def test_a_waiting_request_that_was_cancelled_is_never_run(
    producer: Client, node: FakeNode
) -> None:
    handle = producer.submit(prompt="p", request_id="r")
    assert handle.cancel()
    with pytest.raises(RequestCancelled):
        handle.result(LONG_S)
    with pytest.raises(UnknownRequest):
        producer.handle("r")
    wait_until(lambda: node.topic.cancel("r") == "unknown" or not node.take())


def test_a_running_request_that_was_cancelled_rings_at_its_node(
    producer: Client, node: FakeNode, server: RedisServer
) -> None:
    stream = producer.stream(prompt="p", request_id="r")
    [job] = node.take_exactly(1)
    stream.close()
    with server.client() as redis:
        bell = f"inferq:default:bell:{node.inc}"
        wait_until(lambda: '["cancel","r"]' in redis.lrange(bell, 0, -1))
    node.answer(job)
    assert producer.counts().held == 0


def test_another_process_cancels_a_request_and_its_producer_hears_of_it(
    cluster: Settings, producer: Client, node: FakeNode
) -> None:
    handle = producer.submit(prompt="p", request_id="r")
    node.take_exactly(1)
    with Client(cluster) as other:
        assert other.cancel("r")
        with pytest.raises(RequestCancelled, match="elsewhere"):
            handle.result(LONG_S)
        with pytest.raises(UnknownRequest, match="nobody"):
            other.cancel("nobody")


def test_an_expired_request_ends_here_and_is_cancelled_there(
    producer: Client, node: FakeNode, server: RedisServer
) -> None:
    handle = producer.submit(prompt="p", request_id="r", deadline=time.time() + 0.3)
    [job] = node.take_exactly(1)
    assert 0 < job.taken.deadline_ms - job.taken.submitted_ms <= 300
    with pytest.raises(RequestExpired):
        handle.result(LONG_S)
    assert producer.counts().held == 0


def test_a_node_without_a_clue_tells_the_producer(producer: Client, node: FakeNode) -> None:
    handle = producer.submit(prompt="p")
    [job] = node.take_exactly(1)
    node.topic.bury(node.name, node.inc, [Burial(job.taken.claim, "malformed", "no idea")])
    with pytest.raises(RequestFailed, match=r"no idea \[malformed\]"):
        handle.result(LONG_S)


def test_reset_cancels_all_of_this_producer_and_of_no_other(
    cluster: Settings, producer: Client, node: FakeNode
) -> None:
    with Client(cluster) as other:
        spared = other.submit(prompt="p")
        handles = producer.submit_many({"prompt": "p"} for _ in range(20))
        assert producer.reset() == 20
        for handle in handles:
            with pytest.raises(RequestCancelled, match="reset"):
                handle.result(LONG_S)
        wait_until(lambda: node.serve() + other.counts().unread > 0)
        assert spared.result(LONG_S)


def test_closing_cancels_and_leaves_nothing_behind(
    cluster: Settings, server: RedisServer, node: FakeNode
) -> None:
    before = set(threading.enumerate())
    with Client(cluster) as client:
        handle = client.submit(prompt="p")
        with server.client() as redis:
            assert len(redis.keys("inferq:default:out:*")) == 4
    with pytest.raises(RequestCancelled, match="closed"):
        handle.result(LONG_S)
    assert set(threading.enumerate()) == before
    with server.client() as redis:
        assert redis.keys("inferq:default:out:*") == []
        assert node.take() == []
