"""Engines in front of stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from inferq import Request, Settings
from inferq.engines import Chunk, Engine, create_engine
from tests.engines.openai.standin import StandIn
from tests.engines.openai.wire import token_of, word
from tests.support import LONG_S

#: Nothing looks at the server unless a test wants it.
QUIET = {"poll_s": 600, "retry_backoff_s": 0.01, "start_timeout_s": 20}
FASTDEPLOY = {
    "fastdeploy_prefill": {"host_ip": "127.0.0.1", "connector_port": 8300},
    "fastdeploy_decode": {
        "host_ip": "127.0.0.1",
        "connector_port": 8301,
        "device_ids": [1],
        "rdma_ports": [8401],
    },
}


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test, for a bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(LONG_S):
            await test

    asyncio.run(bounded())


def settings_for(server: StandIn, role: Any = "mixed", **openai: Any) -> Settings:
    """Settings of a node in front of a stand-in."""
    more = FASTDEPLOY if server.flavour == "fastdeploy" else {}
    return Settings(
        engine="openai",
        role=role,
        openai={"base_url": server.url, "flavour": server.flavour, **QUIET, **more, **openai},
    )


@asynccontextmanager
async def engine_for(server: StandIn, role: Any = "mixed", **openai: Any) -> AsyncIterator[Engine]:
    """A running engine."""
    engine = create_engine(settings_for(server, role, **openai))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def ask(request_id: str = "r", **fields: Any) -> Request:
    """A request that every flavour takes."""
    defaults: dict[str, Any] = {"prompt": "The sea is", "max_tokens": 6, "seed": 7}
    if "messages" in fields or "prompt_token_ids" in fields:
        del defaults["prompt"]
    return Request.parse({**defaults, **fields, "request_id": request_id})


async def read(chunks: AsyncIterator[Chunk]) -> list[Chunk]:
    """All of an answer."""
    return [chunk async for chunk in chunks]


def tokens(chunks: list[Chunk]) -> list[int]:
    """Its tokens."""
    return [token for chunk in chunks for token in chunk.token_ids]


def text(chunks: list[Chunk]) -> str:
    """Its text."""
    return "".join(chunk.text for chunk in chunks)


def expected(request: Request) -> list[int]:
    """What a stand-in answers."""
    body: dict[str, Any] = {"temperature": request.temperature, "seed": request.seed}
    if request.messages is not None:
        body["messages"] = [message.model_dump() for message in request.messages]
    else:
        ids = request.prompt_token_ids
        body["prompt"] = list(ids) if ids is not None else request.prompt
    return [token_of(body, at) for at in range(request.max_tokens)]


def words(token_ids: list[int]) -> str:
    """The text of a stand-in's tokens."""
    return "".join(word(token) for token in token_ids)
