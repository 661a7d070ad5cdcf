"""Cancelled requests end at the server too; a server that dies takes its requests and no more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing

import pytest

from inferq import EngineError, InvalidRequest
from inferq.engines import Engine
from tests.engines.openai.pairs import STAND_INS, VllmStandIn
from tests.engines.openai.standin import StandIn
from tests.engines.openai.support import ask, engine_for, expected, read, run, text, words

each = pytest.mark.parametrize("flavour", STAND_INS)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that nobody signals; the test's time limit ends it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@each
@pytest.mark.parametrize("sent", [0, 2])
def test_closing_an_answer_closes_the_servers_connection(flavour: str, sent: int) -> None:
    async def check() -> None:
        async with STAND_INS[flavour]() as server, engine_for(server) as engine:
            idle = engine.capacity()
            server.allowed = asyncio.Semaphore(sent)
            async with aclosing(engine.generate(ask(max_tokens=50))) as chunks:  # type: ignore[type-var]
                if sent:
                    await anext(chunks)
                else:
                    waiting = asyncio.ensure_future(anext(chunks))
                    await server.call()
                    waiting.cancel()
                    await asyncio.gather(waiting, return_exceptions=True)
                call = await server.call()
            assert engine.capacity() == idle
            await call.gone.wait()
            await until(lambda: not server.running)

    run(check())


@each
def test_an_aborted_request_ends_as_cancelled_here_and_there(flavour: str) -> None:
    async def check() -> None:
        async with STAND_INS[flavour]() as server, engine_for(server) as engine:
            idle = engine.capacity()
            server.allowed = asyncio.Semaphore(1)
            chunks = engine.generate(ask(max_tokens=50))
            await anext(chunks)
            assert engine.capacity().free_slots == idle.free_slots - 1
            assert engine.abort("r")
            assert not engine.abort("r")
            assert engine.capacity() == idle
            assert [c.finish_reason for c in await read(chunks)] == ["cancelled"]
            await (await server.call()).gone.wait()

    run(check())


def test_a_request_that_is_aborted_before_its_first_step_never_reaches_the_server() -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            chunks = engine.generate(ask())
            assert engine.abort("r")
            assert [c.finish_reason for c in await read(chunks)] == ["cancelled"]
            assert not server.calls

    run(check())


def test_a_reader_that_is_slow_holds_the_server_back() -> None:
    async def check() -> None:
        async with VllmStandIn() as server, engine_for(server) as engine:
            request = ask(max_tokens=3000)
            chunks = engine.generate(request)
            first = await anext(chunks)
            await asyncio.sleep(0.2)
            rest = await read(chunks)
            assert text([first, *rest]) == words(expected(request))
            slow = engine.generate(ask(max_tokens=3000))
            await anext(slow)
            await asyncio.sleep(0.2)
            assert engine.abort("r")  # what was read ahead is dropped
            assert len(await read(slow)) == 1

    run(check())


def test_stopping_cancels_what_runs_and_refuses_what_comes() -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            server.allowed = asyncio.Semaphore(1)
            chunks = engine.generate(ask())
            await anext(chunks)
            await engine.stop()
            assert (await read(chunks))[-1].finish_reason == "cancelled"
            await (await server.call()).gone.wait()
            with pytest.raises(EngineError):
                await read(engine.generate(ask("late")))
            await engine.stop()

    run(check())


def test_one_id_runs_once() -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            server.allowed = asyncio.Semaphore(1)
            async with aclosing(engine.generate(ask())) as chunks:  # type: ignore[type-var]
                await anext(chunks)
                with pytest.raises(InvalidRequest, match="request_id"):
                    await read(engine.generate(ask()))

    run(check())


@pytest.mark.parametrize("status", [503, 429])
def test_a_busy_server_is_asked_again(status: int) -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server, retries=2) as engine:
            server.faults.extend([status, status])
            assert text(await read(engine.generate(ask()))) == words(expected(ask()))
            assert len(server.calls) == 3
            server.faults.extend([status] * 3)
            with pytest.raises(EngineError, match=f"status {status}: try again later"):
                await read(engine.generate(ask("again")))
            assert len(server.calls) == 6

    run(check())


@pytest.mark.parametrize("status", [500, 502, 404, 401])
def test_another_failure_is_not_asked_again(status: int) -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            server.faults.append(status)
            with pytest.raises(EngineError, match=str(status)):
                await read(engine.generate(ask()))
            assert len(server.calls) == 1

    run(check())


def test_a_request_is_never_sent_twice_once_its_answer_has_begun() -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            server.allowed = asyncio.Semaphore(1)
            chunks = engine.generate(ask())
            await anext(chunks)
            await server.die()
            await server.start()
            with pytest.raises(EngineError, match="broke"):
                await read(chunks)
            assert len(server.calls) == 1

    run(check())


async def fails(engine: Engine, name: str) -> None:
    with pytest.raises(EngineError):
        await read(engine.generate(ask(name)))


@each
def test_a_server_that_dies_fails_its_requests_and_is_taken_up_when_it_is_back(
    flavour: str,
) -> None:
    async def check() -> None:
        async with (
            STAND_INS[flavour]() as server,
            engine_for(server, retries=0, poll_s=0.05) as engine,
        ):
            idle = engine.capacity()
            server.allowed = asyncio.Semaphore(0)
            waiting = [asyncio.create_task(fails(engine, str(n))) for n in range(3)]
            await server.call(2)
            await server.die()
            await asyncio.gather(*waiting)
            await until(lambda: engine.capacity().free_slots == 0)
            assert engine.capacity().free_blocks == 0
            await fails(engine, "meanwhile")
            server.allowed = None
            await server.start()
            await until(lambda: engine.capacity() == idle)
            assert text(await read(engine.generate(ask()))) == words(expected(ask()))

    run(check())


def test_a_request_that_finds_no_server_makes_the_node_look_at_once() -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server, retries=0, poll_s=600) as engine:
            await server.die()
            with pytest.raises(EngineError, match="cannot be reached"):
                await read(engine.generate(ask()))
            await until(lambda: engine.capacity().free_slots == 0)

    run(check())


def test_a_request_waits_for_a_server_that_starts_anew() -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server, retries=20) as engine:
            await server.die()
            answer = asyncio.create_task(read(engine.generate(ask())))
            await asyncio.sleep(0.05)
            await server.start()
            assert text(await answer) == words(expected(ask()))

    run(check())


@each
def test_many_requests_that_end_in_every_way_leave_nothing_behind(flavour: str) -> None:
    chance = random.Random(11)

    async def one(engine: Engine, number: int) -> None:
        request = ask(str(number), max_tokens=chance.randrange(1, 30))
        stop_at, how = chance.randrange(0, 30), chance.choice(["close", "abort", "cancel"])
        async with aclosing(engine.generate(request)) as chunks:  # type: ignore[type-var]
            said = []
            async for chunk in chunks:
                said.append(chunk)
                if len(said) == stop_at:
                    if how == "abort":
                        engine.abort(request.request_id)
                    elif how == "close":
                        return
                    else:
                        asyncio.current_task().cancel()  # type: ignore[union-attr]
                        await asyncio.sleep(0)
        if said[-1].finish_reason == "length":
            assert text(said) == words(expected(request))

    async def check() -> None:
        async with STAND_INS[flavour]() as server, engine_for(server) as engine:
            idle = engine.capacity()
            for turn in range(3):
                tasks = [asyncio.create_task(one(engine, 100 * turn + n)) for n in range(100)]
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    assert result is None or isinstance(result, asyncio.CancelledError)
            assert engine.capacity() == idle
            await until(lambda: not server.running)

    run(check())
