"""What is asked of the server, and what becomes of its answer."""

from __future__ import annotations

from typing import Any

import pytest

from inferq import InvalidRequest, RequestTooLarge
from inferq.engines import Chunk
from tests.engines.openai.pairs import STAND_INS
from tests.engines.openai.standin import MODEL, StandIn
from tests.engines.openai.support import (
    ask,
    engine_for,
    expected,
    read,
    run,
    text,
    tokens,
    words,
)
from tests.engines.openai.wire import sse

each = pytest.mark.parametrize("flavour", STAND_INS)
CHAT = [{"role": "user", "content": "What is the sea?"}]


@each
@pytest.mark.parametrize(
    "prompt", [{"prompt": "The sea is"}, {"prompt_token_ids": [5, 6, 7]}, {"messages": CHAT}]
)
def test_an_answer_arrives_token_by_token(flavour: str, prompt: dict[str, Any]) -> None:
    async def check() -> None:
        request = ask(**prompt)
        async with STAND_INS[flavour]() as server, engine_for(server) as engine:
            chunks = await read(engine.generate(request))
            [call] = server.calls
        want = expected(request)
        assert text(chunks) == words(want)
        assert tokens(chunks) == ([0] * 6 if flavour == "plain" else want)
        assert [chunk.finish_reason for chunk in chunks] == [None] * 5 + ["length"]
        assert call.path.endswith("/chat/completions" if "messages" in prompt else "/completions")

    run(check())


@each
def test_an_end_of_the_model_is_a_stop(flavour: str) -> None:
    async def check() -> None:
        async with STAND_INS[flavour]() as server, engine_for(server) as engine:
            server.end_after = 3
            chunks = await read(engine.generate(ask()))
        assert len(tokens(chunks)) == 3
        assert chunks[-1].finish_reason == "stop"

    run(check())


def test_every_field_of_a_request_reaches_a_server_that_knows_it() -> None:
    async def check() -> None:
        request = ask(
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            stop=["\n"],
            stop_token_ids=[9],
            min_tokens=2,
            ignore_eos=True,
        )
        async with STAND_INS["vllm"]() as server, engine_for(server) as engine:
            await read(engine.generate(request))
            [call] = server.calls
        assert call.body == {
            "model": MODEL,
            "prompt": "The sea is",
            "max_tokens": 6,
            "seed": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "stop": ["\n"],
            "stop_token_ids": [9],
            "min_tokens": 2,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }

    run(check())


@pytest.mark.parametrize(
    ("flavour", "field", "value"),
    [
        ("plain", "top_k", 5),
        ("plain", "min_tokens", 2),
        ("plain", "stop_token_ids", [3]),
        ("plain", "ignore_eos", True),
        ("fastdeploy", "ignore_eos", True),
    ],
)
def test_a_field_that_the_server_does_not_know_is_refused(
    flavour: str, field: str, value: Any
) -> None:
    async def check() -> None:
        async with STAND_INS[flavour]() as server, engine_for(server) as engine:
            idle = engine.capacity()
            request = ask(**{field: value})
            with pytest.raises(InvalidRequest, match=field):
                engine.count_tokens(request)
            with pytest.raises(InvalidRequest, match=field):
                await read(engine.generate(request))
            assert not server.calls
            assert engine.capacity() == idle

    run(check())


def choice(**fields: Any) -> str:
    import json

    return json.dumps({"choices": [{"index": 0, **fields}]})


def test_text_without_a_token_waits_for_the_next_one() -> None:
    async def check() -> None:
        async with STAND_INS["vllm"]() as server, engine_for(server) as engine:
            server.faults.append(
                sse(
                    choice(text="", token_ids=[1]),
                    choice(text="é", token_ids=[2]),
                    choice(text="held "),
                    choice(text="back", token_ids=[3]),
                    choice(text=" end", finish_reason="stop"),
                    "[DONE]",
                )
            )
            chunks = await read(engine.generate(ask()))
        assert chunks == [
            Chunk((1,), ""),
            Chunk((2,), "é"),
            Chunk((3,), "held back"),
            Chunk((), " end", "stop"),
        ]

    run(check())


def test_a_server_that_names_no_tokens_counts_one_for_each_piece() -> None:
    async def check() -> None:
        async with STAND_INS["vllm"]() as server, engine_for(server) as engine:
            server.faults.append(
                sse(choice(text="a"), choice(text=""), choice(text="b", finish_reason="stop"))
            )
            chunks = await read(engine.generate(ask()))
        assert chunks == [Chunk((0,), "a"), Chunk((0,), "b", "stop")]

    run(check())


@pytest.mark.parametrize(
    ("status", "said", "error", "field"),
    [
        (400, '{"error": {"message": "bad top_p", "param": "top_p"}}', InvalidRequest, "top_p"),
        (422, '{"detail": [{"msg": "no such thing"}]}', InvalidRequest, "request"),
        (
            400,
            '{"error": {"message": "This model\'s maximum context length is 4096 tokens."}}',
            RequestTooLarge,
            "prompt",
        ),
        (
            400,
            '{"error": {"type": "exceed_context_size_error", "message": "no"}}',
            RequestTooLarge,
            "prompt",
        ),
        (413, "too much", RequestTooLarge, "prompt"),
    ],
)
def test_a_refusal_says_what_the_server_said(
    status: int, said: str, error: type[InvalidRequest], field: str
) -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            server.faults.append(
                f"HTTP/1.1 {status} X\r\ncontent-length: {len(said)}\r\n\r\n{said}".encode()
            )
            with pytest.raises(InvalidRequest) as caught:
                await read(engine.generate(ask()))
        assert type(caught.value) is error
        assert caught.value.field == field
        assert "the server refuses it" in str(caught.value)

    run(check())


def test_estimates_follow_what_the_server_counts() -> None:
    async def check() -> None:
        prompt = "There is a sea beyond the sea. " * 40
        async with StandIn() as server, engine_for(server) as engine:
            before = engine.count_tokens(ask(prompt=prompt))
            for turn in range(20):
                await read(engine.generate(ask(str(turn), prompt=prompt)))
            after = engine.count_tokens(ask(prompt=prompt))
            assert engine.count_tokens(ask(prompt_token_ids=[1, 2, 3])) == 3
        exact = len(prompt) // 2
        assert before == len(prompt) // 4
        assert abs(after - exact) < 0.05 * exact

    run(check())
