"""A server that does not keep to the protocol fails its requests, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from inferq import EngineError
from inferq.engines.openai.sse import MAX_LINE_BYTES, BadStream, events
from tests.engines.openai.pairs import STAND_INS
from tests.engines.openai.standin import StandIn
from tests.engines.openai.support import ask, engine_for, expected, read, run, text, words
from tests.engines.openai.wire import sse

GOOD = '{"choices": [{"index": 0, "text": "a", "finish_reason": null}]}'
END = '{"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}'
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (sse(GOOD, "{not json"), "no JSON"),
        (sse(DEEP), "no JSON"),
        (sse("[1]"), "no object"),
        (sse('{"choices": 5}'), "no choices"),
        (sse('{"choices": [{}, {}]}'), "more than the one"),
        (sse('{"choices": [7]}'), "no object"),
        (sse('{"choices": [{"text": 7}]}'), "no string"),
        (sse('{"choices": [{"text": "a", "finish_reason": "abort"}]}'), "abort"),
        (sse('{"error": {"message": "CUDA out of memory"}}'), "CUDA out of memory"),
        (sse(GOOD), "before the end"),
        (sse(GOOD, "[DONE]"), "before the end"),
        (sse() + b"nonsense\n\n", "no event"),
        (sse() + b"data: \xff\xfe\n\n", "UTF-8"),
        (sse() + b"data: " + b"x" * (MAX_LINE_BYTES + 70_000), "a line of more than"),
        (sse() + b": ping\n" * 200_000, "longer than"),
        (sse(GOOD, head="application/json"), "not with a stream"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 900\r\n\r\n",
         "broke"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
         "status 302"),
        (b"nonsense\r\n\r\n", "broke"),
        (b"", "broke"),
    ],
)  # fmt: skip
def test_what_is_no_answer_fails_the_request_alone(answer: bytes, said: str) -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            idle = engine.capacity()
            server.faults.append(answer)
            with pytest.raises(EngineError, match=said):
                await read(engine.generate(ask("bad")))
            assert engine.capacity() == idle
            assert text(await read(engine.generate(ask()))) == words(expected(ask()))

    run(check())


def test_an_answer_of_a_foreign_dialect_is_read() -> None:
    """Carriage returns, comments, fields that say nothing, data over two lines, no space."""
    raw = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        b": hello\r\n\r\nevent: message\r\nid: 1\r\n"
        b'data:{"choices": [{"index": 0,\r\ndata: "text": "\xc3\xa9"}]}\r\n\r\n'
        b"retry: 5\r\n\r\ndata: " + END.encode() + b"\r\n\r\n"
    )

    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            server.faults.append(raw)
            assert text(await read(engine.generate(ask()))) == "é"

    run(check())


def test_a_character_may_be_cut_anywhere() -> None:
    data = json.dumps({"text": "é🚀"}, ensure_ascii=False)
    raw = f"data: {data}\n\n".encode()

    async def check() -> None:
        async def single_bytes() -> AsyncIterator[bytes]:
            for at in range(len(raw)):
                yield raw[at : at + 1]

        assert [found async for found in events(single_bytes(), most_bytes=1000)] == [data]
        with pytest.raises(BadStream, match="longer than 10 bytes"):
            [found async for found in events(single_bytes(), most_bytes=10)]

    run(check())


def test_an_answer_that_has_ended_does_not_wait_for_the_server_to_close_it() -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            kept: list[asyncio.StreamWriter] = []

            async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                kept.append(writer)
                await reader.readuntil(b"\r\n\r\n")
                writer.write(sse(GOOD, END))
                await reader.read()
                writer.close()

            await server.die()
            other = await asyncio.start_server(silent, "127.0.0.1", server.port)
            chunks = await read(engine.generate(ask()))
            other.close()
        assert text(chunks) == "a"
        assert chunks[-1].finish_reason == "stop"

    run(check())


@pytest.mark.parametrize(("flavour", "connections"), [("vllm", 2), ("plain", 8)])
def test_connections_are_used_again_where_the_server_is_known_to_keep_them(
    flavour: str, connections: int
) -> None:
    async def check() -> None:
        async with STAND_INS[flavour]() as server, engine_for(server) as engine:
            looks = server.connections
            for turn in range(6):
                await read(engine.generate(ask(str(turn))))
            assert server.connections - looks == (1 if flavour == "vllm" else 6)
            assert server.connections == connections

    run(check())
