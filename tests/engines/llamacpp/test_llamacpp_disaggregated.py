"""Prefill in one process, decode in another: the tokens of one."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from inferq import Request, Settings
from inferq.engines import create_engine
from inferq.transfer import create_transfer

ROOT = Path(__file__).parents[3]
SETTINGS: dict[str, Any] = {
    "engine": "llamacpp",
    "scheduler_name": "splitwise",
    "llamacpp": {"context_tokens": 1024, "max_slots": 4, "threads": 1},
    "transfer": {"listen": "127.0.0.1:0", "token": "open sesame"},
}
PROMPTS = ("The capital of France is", "Count with me: " + "one two three four " * 20)

pytestmark = [pytest.mark.model]


async def decode_elsewhere(request: Request, handoff: dict[str, Any]) -> dict[str, Any]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.engines.llamacpp.decoder",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    words = {
        "settings": SETTINGS,
        "request": request.model_dump(exclude_none=True),
        "handoff": handoff,
    }
    said, _ = await child.communicate(json.dumps(words).encode() + b"\n")
    answer: dict[str, Any] = json.loads(said)
    return answer


@pytest.mark.parametrize("protocol", ["memfd", "tcp"])
def test_two_processes_give_the_tokens_of_one(protocol: str) -> None:
    pytest.importorskip("xllamacpp")

    async def check() -> None:
        settings = Settings(**SETTINGS)
        engine, transfer = create_engine(settings), create_transfer(settings)
        await transfer.start()
        engine.use_transfer(transfer)
        await engine.start()
        try:
            for number, prompt in enumerate(PROMPTS):
                request = Request.parse(
                    {
                        "request_id": f"r{number}",
                        "prompt": prompt,
                        "max_tokens": 24,
                        "temperature": 0,
                        "ignore_eos": True,
                    }
                )
                whole = [t async for chunk in engine.generate(request) for t in chunk.token_ids]
                first, last = [chunk async for chunk in engine.prefill(request)]
                assert last.handoff is not None
                handoff = {**last.handoff.model_dump(), "protocols": [protocol]}
                rest = await decode_elsewhere(request, handoff)
                assert rest["protocol"] == protocol
                assert [*first.token_ids, *rest["tokens"]] == whole
                assert len(whole) == 24
        finally:
            await engine.stop()
            await transfer.stop()

    asyncio.run(check())
