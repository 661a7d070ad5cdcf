"""In front of a real server: llama.cpp's own, with a real model, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferq import EngineStartError, InvalidRequest, RequestTooLarge, Settings
from inferq.engines import Engine, create_engine
from tests.engines.openai.support import ask, read, run, text, tokens
from tests.engines.openai.test_openai_ends import until
from tests.support import LONG_S

pytestmark = pytest.mark.model
ROOT = Path(__file__).parents[3]


class LlamaServer:
    """The process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.engines.openai.llama_server"],
            cwd=ROOT,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], LONG_S)
        line = self._process.stdout.readline().decode().strip() if ready else ""
        if not line:
            self.kill()
            raise AssertionError("the server did not start")
        self.url = f"{line}/v1"

    def kill(self) -> None:
        """End it as the kernel would."""
        self._process.kill()
        self._process.wait(LONG_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    pytest.importorskip("xllamacpp")
    running = LlamaServer()
    yield running
    running.kill()


@asynccontextmanager
async def engine_for(server: LlamaServer, **openai: Any) -> AsyncIterator[Engine]:
    more = {"base_url": server.url, "flavour": "llamacpp", "poll_s": 0.1, **openai}
    engine = create_engine(Settings(engine="openai", openai=more))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def test_it_says_what_it_can_hold(server: LlamaServer) -> None:
    async def check() -> None:
        async with engine_for(server) as engine:
            now = engine.capacity()
            assert (now.total_slots, now.max_model_len) == (4, 1024)
            for error, fields in (
                (InvalidRequest, {"prompt_token_ids": [2**30]}),
                (RequestTooLarge, {"max_tokens": 1024}),
                (RequestTooLarge, {"prompt_token_ids": [1] * 1024}),
            ):
                with pytest.raises(error):
                    engine.count_tokens(ask(**fields))
                with pytest.raises(error):
                    await read(engine.generate(ask(**fields)))
            with pytest.raises(RequestTooLarge):  # by the server: only it can count text
                await read(engine.generate(ask(prompt="sea and " * 2000)))
        async with engine_for(server, exact_counts=True) as engine:
            exact = await asyncio.to_thread(engine.count_tokens, ask(prompt="The sea is"))
            assert exact == 3

    run(check())


def test_an_answer_has_tokens_with_their_ids(server: LlamaServer) -> None:
    async def check() -> None:
        async with engine_for(server) as engine:
            request = ask(max_tokens=12, temperature=0, ignore_eos=True)
            chunks = await read(engine.generate(request))
            assert len(tokens(chunks)) == 12
            assert all(chunk.token_ids for chunk in chunks[:-1])
            assert chunks[-1].finish_reason == "length"
            assert text(chunks).strip()
            assert len(set(tokens(chunks))) > 3
            again = await read(engine.generate(request))
            assert text(again) == text(chunks)
            # The ids are the model's: what they say is what was said.
            continued = ask(prompt_token_ids=tokens(chunks), max_tokens=1, temperature=0)
            assert len(tokens(await read(engine.generate(continued)))) == 1

    run(check())


def test_a_conversation_is_put_into_words_by_the_server(server: LlamaServer) -> None:
    async def check() -> None:
        async with engine_for(server) as engine:
            question = [{"role": "user", "content": "What is the capital of France?"}]
            chunks = await read(
                engine.generate(ask(messages=question, max_tokens=24, temperature=0))
            )
            assert all(chunk.token_ids for chunk in chunks[:-1])
            body = {"messages": question, "max_tokens": 24, "temperature": 0}
            async with httpx.AsyncClient(timeout=LONG_S) as client:
                asked = await client.post(f"{server.url}/chat/completions", json=body)
            assert text(chunks) == asked.json()["choices"][0]["message"]["content"]
            last_word = text(chunks).split()[-1]
            stop = ask(messages=question, max_tokens=24, temperature=0, stop=[last_word])
            stopped = await read(engine.generate(stop))
            assert stopped[-1].finish_reason == "stop"
            assert last_word not in text(stopped)
            assert text(chunks).startswith(text(stopped))

    run(check())


def test_requests_run_beside_each_other_and_more_than_slots_are_answered(
    server: LlamaServer,
) -> None:
    async def check() -> None:
        async with engine_for(server) as engine:
            requests = [ask(str(n), max_tokens=4, ignore_eos=True) for n in range(9)]
            answers = await asyncio.gather(*(read(engine.generate(r)) for r in requests))
            assert [answer[-1].finish_reason for answer in answers] == ["length"] * 9
            await until(lambda: engine.capacity().free_slots == 4)

    run(check())


@pytest.mark.parametrize("by", ["closing", "abort"])
def test_a_cancelled_answer_stops_at_the_server(server: LlamaServer, by: str) -> None:
    async def check() -> None:
        async with engine_for(server) as engine, engine_for(server) as witness:
            idle = engine.capacity()
            long = ask(max_tokens=1000, ignore_eos=True)
            async with aclosing(engine.generate(long)) as chunks:  # type: ignore[type-var]
                await anext(chunks)
                await until(lambda: witness.capacity().free_slots == 3)
                if by == "abort":
                    assert engine.abort("r")
                    assert (await read(chunks))[-1].finish_reason == "cancelled"
            assert engine.capacity().free_blocks == idle.free_blocks
            # The server itself says that it has stopped.
            await until(lambda: witness.capacity().free_slots == 4)

    run(check())


def test_another_model_is_not_served(server: LlamaServer) -> None:
    async def check() -> None:
        with pytest.raises(EngineStartError, match=r"openai\.model='gpt': .* serves .*SmolLM2"):
            async with engine_for(server, model="gpt"):
                pass

    run(check())


def test_a_killed_server_fails_what_runs_and_the_node_takes_nothing() -> None:
    pytest.importorskip("xllamacpp")

    async def check() -> None:
        server = await asyncio.to_thread(LlamaServer)
        try:
            async with engine_for(server, retries=0) as engine:
                chunks = engine.generate(ask(max_tokens=1000, ignore_eos=True))
                await anext(chunks)
                server.kill()
                with pytest.raises(Exception, match="server"):
                    await read(chunks)
                await until(lambda: engine.capacity().free_slots == 0)
        finally:
            server.kill()

    run(check())
