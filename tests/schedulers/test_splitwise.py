"""Requests are placed: by producers for their prefill, by prefill nodes for their decode."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from inferq import AsyncClient, Client, RequestExpired, Settings, SettingsError, Status
from inferq.cluster.topic import Hop, Target
from tests.fake_node import FakeNode, Job
from tests.redis_server import RedisServer, cluster_settings
from tests.support import LONG_S, wait_until

PROMPT = list(range(100))
#: Those that choose a node when a request is submitted.
EARLY = ["blur", "least_time", "round_robin", "random", "power_of_two"]


def splitwise(server: RedisServer, **placement: object) -> Settings:
    return cluster_settings(server.port, scheduler_name="splitwise", placement=placement)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as running:
        yield running


def start(stack: ExitStack, settings: Settings, *names: str, **fields: object) -> list[FakeNode]:
    """Nodes, ended with the test."""
    nodes = [FakeNode(settings, name, **fields) for name in names]  # type: ignore[arg-type]
    for node in nodes:
        stack.callback(node.close)
    return nodes


def waiting(server: RedisServer, *nodes: FakeNode) -> list[int]:
    """What waits for each node's prefill."""
    with server.client() as redis:
        return [len(redis.lrange(f"default.prefill.{node.name}", 0, -1)) for node in nodes]


def pass_on(node: FakeNode, job: Job, target: Target | None = None) -> str:
    """What a prefill node does when it has the first token; where the request went."""
    hop = Hop(job.taken.claim, node.topic.decode_base, job.taken.raw, 100, 10, target=target)
    [placed] = node.topic.hop(node.name, node.inc, [hop])
    assert placed is not None
    return placed.node


@pytest.mark.parametrize("policy", EARLY)
def test_requests_wait_at_the_nodes_that_were_chosen(
    server: RedisServer, stack: ExitStack, policy: str
) -> None:
    settings = splitwise(server, prefill_policy=policy)
    nodes = start(stack, settings, "p1@h", "p2@h", "p3@h")
    [other] = start(stack, settings, "d1@h", serves=["decode"])
    producer = stack.enter_context(Client(settings))
    producer.submit_many({"prompt_token_ids": PROMPT, "max_tokens": 5} for _ in range(60))
    assert other.take() == []
    queued = waiting(server, *nodes)
    assert sum(queued) == 60
    assert all(queued) or policy == "blur"
    if policy in ("least_time", "round_robin"):
        assert queued == [20, 20, 20]


def test_late_binding_leaves_them_in_the_shared_queue(
    server: RedisServer, stack: ExitStack
) -> None:
    settings = splitwise(server)
    [node] = start(stack, settings, "p1@h")
    producer = stack.enter_context(Client(settings))
    producer.submit(prompt_token_ids=PROMPT)
    with server.client() as redis:
        assert redis.llen("default.prefill") == 1
    assert len(node.take()) == 1


def test_what_one_producer_sends_counts_for_the_others_at_once(
    server: RedisServer, stack: ExitStack
) -> None:
    # They read the loads of all nodes once and never again.
    settings = splitwise(server, prefill_policy="least_time", refresh_s=60)
    nodes = start(stack, settings, *(f"p{n}@h" for n in range(4)))
    producers = [stack.enter_context(Client(settings)) for _ in range(4)]
    for producer in producers:
        producer.submit(prompt_token_ids=PROMPT)
    threads = [
        threading.Thread(
            target=lambda producer=producer: [
                producer.submit(prompt_token_ids=PROMPT) for _ in range(24)
            ]
        )
        for producer in producers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert [len(node.take()) for node in nodes] == [25, 25, 25, 25]


def test_a_node_whose_lease_lapsed_gets_nothing_from_that_moment(
    server: RedisServer, stack: ExitStack
) -> None:
    settings = splitwise(server, prefill_policy="round_robin", refresh_s=60)
    lost, node = start(stack, settings, "p1@h", "p2@h")
    producer = stack.enter_context(Client(settings))
    producer.submit_many([{"prompt_token_ids": PROMPT}] * 2)
    with server.client() as redis:
        redis.zadd("inferq:default:leases", {lost.inc: 1})
    producer.submit_many({"prompt_token_ids": PROMPT} for _ in range(10))
    assert waiting(server, lost, node) == [1, 11]


def test_a_request_that_no_node_can_take_waits_and_its_origin_can_see_why(
    server: RedisServer, stack: ExitStack
) -> None:
    settings = splitwise(server, prefill_policy="least_time")
    producer = stack.enter_context(Client(settings))
    handle = producer.submit(prompt_token_ids=PROMPT, request_id="r")
    status = producer.status("r")
    assert (status.state, status.phase) == ("queued", "prefill")
    assert status.reason == "no prefill node is ready (none is known)"
    [node] = start(stack, settings, "p1@h")
    assert producer.status("r").reason == ""
    [job] = node.take()
    assert producer.status("r") == Status("running", "prefill", "p1@h")
    assert pass_on(node, job) == ""
    status = producer.status("r")
    assert (status.state, status.phase) == ("queued", "decode")
    assert status.reason == "no decode node is ready (none is known)"
    [other] = start(stack, settings, "d1@h", serves=["decode"])
    [job] = other.take()
    assert producer.status("r") == Status("running", "decode", "d1@h")
    other.answer(job)
    assert handle.result(LONG_S).token_ids == (1, 2, 3)
    assert producer.status("r").state in ("ended", "unknown")
    assert producer.status("never was").state == "unknown"


def test_asyncio_can_ask_too(server: RedisServer) -> None:
    async def ask() -> Status:
        async with AsyncClient(splitwise(server)) as producer:
            await producer.submit(prompt="p", request_id="r")
            return await producer.status("r")

    import asyncio

    assert asyncio.run(ask()).state == "queued"


def test_a_request_that_no_node_takes_ends_with_its_time(server: RedisServer) -> None:
    settings = splitwise(server, prefill_policy="blur")
    with Client(settings.model_copy(update={"scheduler_ttl": 1})) as producer:
        handle = producer.submit(prompt="p")
        with pytest.raises(RequestExpired):
            handle.result(LONG_S)


def test_a_node_that_is_too_small_is_not_chosen(server: RedisServer, stack: ExitStack) -> None:
    settings = splitwise(server, prefill_policy="round_robin")
    small, large = (
        start(stack, settings, "small@h", longest=50)[0],
        start(stack, settings, "large@h", longest=1000)[0],
    )
    producer = stack.enter_context(Client(settings))
    producer.submit_many({"prompt_token_ids": PROMPT, "max_tokens": 5} for _ in range(6))
    assert waiting(server, small, large) == [0, 6]


def test_a_client_beside_a_node_uses_its_queue_whatever_the_policy(
    server: RedisServer, stack: ExitStack
) -> None:
    settings = splitwise(server, prefill_policy="round_robin")
    node, _ = start(stack, settings, "p1@h", "p2@h")
    producer = stack.enter_context(Client(settings, node="p1@h"))
    producer.submit_many({"prompt_token_ids": PROMPT} for _ in range(4))
    assert len(node.take()) == 4


def test_an_unknown_policy_is_named(server: RedisServer) -> None:
    with pytest.raises(SettingsError, match=r"placement\.prefill_policy.*nearest.*least_time"):
        splitwise(server, prefill_policy="nearest")


def test_counts_show_both_phases(server: RedisServer, stack: ExitStack) -> None:
    settings = splitwise(server)
    [node] = start(stack, settings, "p1@h")
    producer = stack.enter_context(Client(settings))
    producer.submit_many({"prompt_token_ids": PROMPT} for _ in range(3))
    first, *_ = node.take()
    pass_on(node, first)
    wait_until(lambda: (producer.counts().waiting, producer.counts().running) == (1, 2))
