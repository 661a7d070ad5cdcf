"""Connections lost, Redis away, restarted, or silent: nothing is lost, nothing is doubled."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pytest

from inferq import Client, Output, SchedulerUnavailable, Settings
from tests.fake_node import FakeNode, Job, output_of
from tests.proxy import Proxy
from tests.redis_server import RedisServer, cluster_settings
from tests.support import LONG_S, wait_until

#: How long a producer waits for Redis here, seconds.
PATIENCE_S = 0.6


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
def behind(proxy: Proxy) -> Settings:
    """Settings of a producer that reaches the server through the proxy only."""
    return cluster_settings(proxy.port, cluster={"redis_timeout_s": PATIENCE_S})


def test_readers_go_on_where_they_were_after_their_connections_were_killed(
    producer: Client, node: FakeNode, server: RedisServer
) -> None:
    stream = producer.stream(prompt="p")
    [job] = node.take_exactly(1)
    for index in range(20):
        node.send(job, [output_of(job, index, [index])])
        if index % 5 == 0:
            with server.client() as redis:
                for row in redis.client_list(_type="normal"):
                    if row["cmd"] in {"xread", "evalsha", "ping"} and row["flags"] == "b":
                        redis.client_kill_filter(_id=row["id"])
        assert next(stream).token_ids == (index,)
    node.send(job, [output_of(job, 20, [], last=True)])
    assert [output.finished for output in stream] == [True]


def test_outputs_written_while_the_producer_was_cut_off_arrive_later(
    behind: Settings, node: FakeNode, proxy: Proxy
) -> None:
    with Client(behind) as producer:
        handles = producer.submit_many({"prompt": "p"} for _ in range(20))
        jobs = node.take_exactly(20)
        proxy.cut()
        for job in jobs:
            node.answer(job)
        assert not any(handle.done for handle in handles)
        proxy.mend()
        assert all(handle.result(LONG_S).token_ids == (1, 2, 3) for handle in handles)


def test_a_put_outlives_a_lost_connection(behind: Settings, node: FakeNode, proxy: Proxy) -> None:
    with Client(behind) as producer:
        producer.submit(prompt="p", request_id="1")
        proxy.drop()
        producer.submit(prompt="p", request_id="2")
        assert [job.request_id for job in node.take()] == ["1", "2"]


def test_a_put_that_never_left_may_be_put_again(
    behind: Settings, node: FakeNode, proxy: Proxy
) -> None:
    with Client(behind) as producer:
        proxy.cut()
        with pytest.raises(SchedulerUnavailable, match="submit again with the same id"):
            producer.submit(prompt="p", request_id="r")
        proxy.mend()
        handle = producer.submit(prompt="p", request_id="r")
        assert node.serve() == 1
        assert handle.result(LONG_S)


def test_a_put_whose_answer_was_lost_is_put_again_without_running_twice(
    behind: Settings, node: FakeNode, proxy: Proxy, server: RedisServer
) -> None:
    with Client(behind) as producer:
        producer.submit(prompt="warm", request_id="warm")
        node.serve()
        proxy.deafen()  # the server takes the request; its answer does not come back
        with pytest.raises(SchedulerUnavailable):
            producer.submit(prompt="p", request_id="r")
        proxy.mend()
        first = producer.handle("r")
        again = producer.submit(prompt="p", request_id="r")
        wait_until(lambda: node.serve() > 0)
        assert first.result(LONG_S) == again.result(LONG_S)
        assert node.serve() == 0


def test_what_was_delivered_while_a_put_was_in_doubt_is_not_lost(
    behind: Settings, node: FakeNode, proxy: Proxy
) -> None:
    with Client(behind) as producer:
        proxy.deafen()
        with pytest.raises(SchedulerUnavailable):
            producer.submit(prompt="p", request_id="r")
        proxy.mend()
        wait_until(lambda: node.serve() > 0)
        wait_until(lambda: producer.handle("r").done)
        again = producer.submit(prompt="p", request_id="r")
        assert again.result(LONG_S).token_ids == (1, 2, 3)
        assert node.serve() == 0


def test_a_silent_redis_is_given_up_and_the_client_closes(behind: Settings, proxy: Proxy) -> None:
    client = Client(behind)
    with client:
        proxy.freeze()
        with pytest.raises(SchedulerUnavailable):
            client.submit(prompt="p")
        with pytest.raises(SchedulerUnavailable):
            client.counts()
        with pytest.raises(SchedulerUnavailable):
            client.cancel("somebody else's")


def test_cancelling_ones_own_never_waits_for_redis(
    behind: Settings, node: FakeNode, proxy: Proxy
) -> None:
    with Client(behind) as producer:
        handle = producer.submit(prompt="p", request_id="r")
        proxy.cut()
        assert handle.cancel()
        assert handle.done
        proxy.mend()
        wait_until(lambda: record_state(node, "r") == "c")
        assert node.take() == []


def test_streams_are_made_again_when_redis_was_restarted_empty() -> None:
    own = RedisServer()
    try:
        settings = cluster_settings(own.port)
        with Client(settings) as producer:
            own.restart()
            wait_until(lambda: stream_count(own) == 4)
            node = FakeNode(settings)
            handle = producer.submit(prompt="p")
            assert node.serve() == 1
            assert handle.result(LONG_S).token_ids == (1, 2, 3)
            node.close()
    finally:
        own.stop()


def test_streams_are_made_again_when_they_have_expired(server: RedisServer) -> None:
    settings = cluster_settings(server.port, cluster={"origin_ttl_s": 1})
    with Client(settings) as producer, server.client() as redis:
        node = FakeNode(settings)
        redis.delete(*redis.keys("inferq:default:out:*"))
        wait_until(lambda: stream_count(server) == 4)
        handles = producer.submit_many({"prompt": "p"} for _ in range(8))
        assert node.serve() == 8
        assert all(handle.result(LONG_S) for handle in handles)
        node.close()


def test_streams_are_kept_alive_and_expire_with_their_producer(server: RedisServer) -> None:
    settings = cluster_settings(server.port, cluster={"origin_ttl_s": 1})
    with Client(settings), server.client() as redis:
        [key, *_] = redis.keys("inferq:default:out:*")
        seen = [redis.pttl(key)]

        def was_refreshed() -> bool:
            seen.append(redis.pttl(key))
            return bool(seen[-1] > seen[-2])

        wait_until(was_refreshed)
        assert 0 < max(seen) <= 1000


def test_what_was_read_is_deleted(producer: Client, node: FakeNode, server: RedisServer) -> None:
    handles = producer.submit_many({"prompt": "p"} for _ in range(50))
    for job in node.take_exactly(50):
        node.answer(job)
    for handle in handles:
        handle.result(LONG_S)
    with server.client() as redis:
        keys = redis.keys("inferq:default:out:*")
        wait_until(lambda: sum(redis.xlen(key) for key in keys) == 0)


def test_a_producer_that_does_not_read_fills_its_stream_and_no_more(
    behind: Settings, node: FakeNode, proxy: Proxy, server: RedisServer
) -> None:
    settings = behind.model_copy(
        update={"cluster": behind.cluster.model_copy(update={"max_stream_entries": 10})}
    )
    bounded = FakeNode(settings.model_copy(update={"scheduler_port": server.port}), "n2@here")
    with Client(settings) as producer:
        handle = producer.submit(prompt="p")
        [job] = bounded.take_exactly(1)
        proxy.freeze()
        outcomes = [bounded.send(job, [output_of(job, i, [i])]) for i in range(30)]
        assert outcomes.count(2) >= 19
        proxy.mend()
        at = outcomes.index(2)
        for index in range(at, 30):
            output = output_of(job, index, [index])
            wait_until(partial(sent, bounded, job, output))
        bounded.send(job, [output_of(job, 30, [], last=True)])
        assert handle.result(LONG_S).token_ids == tuple(range(30))
    bounded.close()


def test_a_wrong_password_is_said_at_once_and_never_printed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = RedisServer(requirepass="right")
    try:
        settings = cluster_settings(own.port, scheduler_password="secret-and-wrong")
        with caplog.at_level(logging.DEBUG), pytest.raises(SchedulerUnavailable) as caught:
            Client(settings).__enter__()
        assert "password" in str(caught.value)
        assert "secret" not in str(caught.value) + caplog.text
        assert caught.value.__cause__ is None
    finally:
        own.stop()


def test_a_redis_that_is_not_there_is_said_at_start() -> None:
    with Proxy(1) as nowhere:
        settings = cluster_settings(nowhere.port, cluster={"redis_timeout_s": 0.2})
        with pytest.raises(SchedulerUnavailable, match="does not answer"):
            Client(settings).__enter__()


def test_a_hostile_entry_does_not_stop_a_reader(
    producer: Client, node: FakeNode, server: RedisServer
) -> None:
    handle = producer.submit(prompt="p")
    [job] = node.take_exactly(1)
    hostile = [b"", b"\xc1", b"\x93\x01\x02", b"\x91\x99", b"\x81\x90\x01", b"\xff" * 50]
    with server.client() as redis:
        for key in redis.keys("inferq:default:out:*"):
            for blob in hostile:
                redis.xadd(key, {"o": blob, "end": blob})
                redis.xadd(key, {"what": blob})
    node.answer(job)
    assert handle.result(LONG_S).token_ids == (1, 2, 3)


def test_a_lost_node_restarts_its_answer_visibly(producer: Client, node: FakeNode) -> None:
    stream = producer.stream(prompt="p")
    [job] = node.take_exactly(1)
    node.send(job, [output_of(job, 0, [1, 2])])
    assert next(stream).token_ids == (1, 2)
    node.send(job, [output_of(job, 0, [1], attempt=1), output_of(job, 1, [9], attempt=1)])
    restart = next(stream)
    assert (restart.restarted, restart.index, restart.token_ids) == (True, 0, (1, 9))
    node.send(job, [output_of(job, 2, [3], attempt=1, last=True)])
    assert next(stream).token_ids == (3,)


def sent(node: FakeNode, job: Job, output: Output) -> bool:
    return node.send(job, [output]) == 0


def record_state(node: FakeNode, request_id: str) -> str:
    record = node.topic.link.call("GET", f"{node.topic.prefix}req:{request_id}") or b""
    return record.split(b"\n")[2].decode() if record else ""


def stream_count(server: RedisServer) -> int:
    with server.client() as redis:
        return len(redis.keys("inferq:default:out:*"))
