"""The asyncio client of the global scheduler: it never holds up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from inferq import (
    AsyncClient,
    InvalidRequest,
    Output,
    RequestCancelled,
    SchedulerUnavailable,
    Settings,
    UnknownRequest,
)
from tests.fake_node import FakeNode, Job
from tests.proxy import Proxy
from tests.redis_server import RedisServer, cluster_settings
from tests.support import LONG_S


async def until_taken(node: FakeNode, count: int) -> list[Job]:
    jobs: list[Job] = []
    async with asyncio.timeout(LONG_S):
        while len(jobs) < count:
            jobs += node.take()
            await asyncio.sleep(0.001)
    return jobs


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go on until something is so that nobody signals."""
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def test_requests_are_answered(cluster: Settings, node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncClient(cluster) as client:
            handles = await client.submit_many({"prompt": f"{n}"} for n in range(50))
            for job in await until_taken(node, 50):
                node.answer(job)
            results = await asyncio.gather(*(handle.result(LONG_S) for handle in handles))
            assert all(result.token_ids == (1, 2, 3) for result in results)

    run(work)


def test_a_stream_is_submitted_before_it_is_read(cluster: Settings, node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncClient(cluster) as client:
            stream = client.stream(prompt="p")
            [job] = await until_taken(node, 1)
            node.answer(job)
            outputs: list[Output] = [output async for output in stream]
            assert [output.token_ids for output in outputs] == [(1,), (2,), (3,)]

    run(work)


def test_a_wrong_field_is_said_when_the_stream_is_made(cluster: Settings) -> None:
    async def work() -> None:
        async with AsyncClient(cluster) as client:
            with pytest.raises(InvalidRequest, match="max_tokens"):
                client.stream(prompt="p", max_tokens=0)

    run(work)


def test_closing_a_stream_that_was_not_read_cancels_its_request(
    cluster: Settings, node: FakeNode
) -> None:
    async def work() -> None:
        async with AsyncClient(cluster) as client:
            async with client.stream(prompt="p", request_id="r"):
                pass
            with pytest.raises(UnknownRequest):
                client.handle("r")

    run(work)


def test_who_stops_waiting_for_a_submit_has_cancelled_it(
    server: RedisServer, node: FakeNode
) -> None:
    async def work() -> None:
        with Proxy(server.port) as proxy:
            async with AsyncClient(cluster_settings(proxy.port)) as client:
                await client.submit(prompt="warm", request_id="warm")
                proxy.freeze()
                submitting = asyncio.create_task(client.submit(prompt="p", request_id="r"))
                await until(lambda: is_held(client, "r"))
                submitting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await submitting
                proxy.mend()
                await until(lambda: not is_held(client, "r"))

    run(work)


def test_the_loop_goes_on_while_redis_is_silent(server: RedisServer) -> None:
    async def work() -> None:
        with Proxy(server.port) as proxy:
            settings = cluster_settings(proxy.port, cluster={"redis_timeout_s": 0.4})
            async with AsyncClient(settings) as client:
                proxy.freeze()
                ticks = 0

                async def tick() -> None:
                    nonlocal ticks
                    while True:
                        ticks += 1
                        await asyncio.sleep(0.001)

                ticking = asyncio.create_task(tick())
                with pytest.raises(SchedulerUnavailable):
                    await client.submit(prompt="p")
                with pytest.raises(SchedulerUnavailable):
                    await client.cancel("somebody else's")
                ticking.cancel()
                assert ticks > 10
                proxy.mend()

    run(work)


def test_anybody_cancels_anything(cluster: Settings, node: FakeNode) -> None:
    async def work() -> None:
        async with AsyncClient(cluster) as one, AsyncClient(cluster) as other:
            mine = await one.submit(prompt="p", request_id="mine")
            theirs = await other.submit(prompt="p", request_id="theirs")
            assert await one.cancel("mine")
            assert await one.cancel("theirs")
            for handle in (mine, theirs):
                with pytest.raises(RequestCancelled):
                    await handle.result(LONG_S)
            with pytest.raises(UnknownRequest):
                await one.cancel("nobody's")

    run(work)


def is_held(client: AsyncClient, request_id: str) -> bool:
    try:
        client.handle(request_id)
    except UnknownRequest:
        return False
    return True
