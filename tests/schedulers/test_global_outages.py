"""Connections lost, Redis away, restarted, or silent: nothing is lost, nothing is doubled."""

from __future__ import annotations

import logging

import pytest

from inferq import Client, SchedulerUnavailable, Settings
from tests.fake_node import FakeNode, Job, output_of
from tests.proxy import Proxy
from tests.redis_server import RedisServer, cluster_settings
from tests.support import LONG_S, wait_until


def test_readers_go_on_where_they_were_after_their_connections_were_killed(
    producer: Client, node: FakeNode, server: RedisServer
) -> None:
    stream = producer.stream(prompt="p")
    [job] = node.take_exactly(1)
    killed = 0
    for index in range(20):
        node.send(job, [output_of(job, index, [index])])
        if index % 5 == 0:
            with server.client() as redis:
                for row in redis.client_list(_type="normal"):
                    if row["cmd"] == "xread":
                        killed += int(redis.client_kill_filter(_id=row["id"]))
        assert next(stream).token_ids == (index,)
    node.send(job, [output_of(job, 20, [], last=True)])
    assert [output.finished for output in stream] == [True]
    assert killed >= 4


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


def test_old_and_new_ids_are_put_together_in_their_order(
    behind: Settings, node: FakeNode, proxy: Proxy
) -> None:
    with Client(behind) as producer:
        proxy.cut()
        with pytest.raises(SchedulerUnavailable):
            producer.submit_many({"prompt": "p", "request_id": name} for name in "ab")
        proxy.mend()
        first = [producer.handle(name) for name in "ab"]
        again = producer.submit_many({"prompt": "p", "request_id": name} for name in "acb")
        assert [job.request_id for job in serve(node)] == ["a", "c", "b"]
        assert all(handle.result(LONG_S).token_ids for handle in again)
        assert all(handle.done for handle in first)


def test_an_id_in_doubt_may_be_cancelled_and_put_again(
    behind: Settings, node: FakeNode, proxy: Proxy
) -> None:
    with Client(behind) as producer:
        producer.submit(prompt="warm", request_id="warm")
        node.serve()
        proxy.deafen()
        with pytest.raises(SchedulerUnavailable):
            producer.submit(prompt="p", request_id="r")
        assert producer.cancel("r")
        proxy.mend()
        handle = producer.submit(prompt="q", request_id="r")
        assert [job.fields["prompt"] for job in serve(node)] == ["q"]
        assert handle.result(LONG_S).token_ids == (1, 2, 3)


def test_what_was_delivered_while_a_put_was_in_doubt_is_not_lost(
    behind: Settings, node: FakeNode, proxy: Proxy
) -> None:
    with Client(behind) as producer:
        producer.submit(prompt="warm", request_id="warm")
        node.serve()
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
    behind: Settings, node: FakeNode, proxy: Proxy, server: RedisServer
) -> None:
    with Client(behind) as producer, server.client() as redis:
        handle = producer.submit(prompt="p", request_id="r")
        node.take_exactly(1)
        proxy.cut()
        assert handle.cancel()
        assert handle.done
        proxy.mend()
        wait_until(lambda: redis.llen(f"inferq:default:bell:{node.inc}") > 0)


def test_a_wrong_password_is_said_at_once_and_never_printed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = RedisServer()
    try:
        with own.client() as redis:
            redis.config_set("requirepass", "right")
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


def serve(node: FakeNode) -> list[Job]:
    """Answer all that waits; what that was."""
    jobs = node.take()
    for job in jobs:
        node.answer(job)
    return jobs
