"""The whole way, with a real language model."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from inferq import Client, EngineStartError, Request, Settings
from inferq.engines import create_engine
from tests.support import LONG_S

pytestmark = pytest.mark.model

SETTINGS = Settings(
    engine="llamacpp", llamacpp={"context_tokens": 1024, "threads": 1, "max_slots": 8}
)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_real_questions_get_real_answers_streamed() -> None:
    with Client(SETTINGS) as client:
        handles = [
            client.submit(messages=QUESTION, max_tokens=24, temperature=0),
            client.submit(prompt="1, 2, 3, 4,", max_tokens=8, temperature=0),
        ]
        assert "Paris" in "".join(output.text for output in handles[0].stream())
        assert "5, 6" in handles[1].result(LONG_S).text


def test_greedy_decoding_equals_the_engine_called_directly() -> None:
    fields = {"messages": QUESTION, "max_tokens": 20, "temperature": 0, "seed": 1}

    async def directly() -> list[int]:
        engine = create_engine(SETTINGS)
        await engine.start()
        try:
            chunks = engine.generate(Request.parse({**fields, "request_id": "r"}))
            return [token async for chunk in chunks for token in chunk.token_ids]
        finally:
            await engine.stop()

    with Client(SETTINGS) as client:
        through = client.generate(**fields, timeout=LONG_S).token_ids
    assert list(through) == asyncio.run(directly())


def test_a_cancelled_request_stops_computing() -> None:
    with Client(SETTINGS) as client:
        stream = client.stream(prompt="Once upon a time", max_tokens=900, ignore_eos=True)
        next(stream)
        stream.close()
        deadline = time.monotonic() + LONG_S
        while client.counts().free_blocks != client.counts().total_blocks:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_model_that_cannot_be_loaded_fails_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    missing = tmp_path / "none.gguf"
    text = tmp_path / "text.gguf"
    text.write_text("this is no model " * 100)
    for path in (missing, text, tmp_path):
        settings = Settings(engine="llamacpp", llamacpp={"model": str(path)})
        with pytest.raises(EngineStartError, match=path.name), Client(settings):
            pass
