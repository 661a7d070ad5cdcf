"""The streams of a producer: made, kept, read, bounded, and made again."""

from __future__ import annotations

from functools import partial

from inferq import Client, Output, Settings
from tests.fake_node import FakeNode, Job, output_of
from tests.proxy import Proxy
from tests.redis_server import RedisServer, cluster_settings
from tests.support import LONG_S, wait_until


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


def stream_count(server: RedisServer) -> int:
    with server.client() as redis:
        return len(redis.keys("inferq:default:out:*"))
