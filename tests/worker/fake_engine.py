"""An engine that only says what room it has, and what an intake in front of it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from inferq.engines.base import Capacity, Chunk, Engine, Received
from inferq.errors import InvalidRequest
from inferq.messages import Handoff, Request
from inferq.messages.headers import SIZE_HEADER
from inferq.settings import Settings
from inferq.transport.gate import RawMessage, Verdict
from inferq.worker.intake import Intake

TAKE, PASS, STOP = Verdict.TAKE, Verdict.PASS, Verdict.STOP


class FakeEngine(Engine):
    """Ten blocks of ten tokens, and a count of how often it was asked to tokenize."""

    def __init__(self) -> None:
        self.free_blocks = 10
        self.counted = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def capacity(self) -> Capacity:
        return Capacity(10, 10, self.free_blocks, 8, 8, 1000, 100)

    def count_tokens(self, request: Request) -> int:
        self.counted += 1
        if request.prompt == "wrong":
            raise InvalidRequest("prompt", "is wrong")
        return len(request.prompt or request.prompt_token_ids or ())

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        raise NotImplementedError

    def prefill(self, request: Request, produced: Sequence[int] = ()) -> AsyncIterator[Chunk]:
        raise NotImplementedError

    def decode(
        self, request: Request, handoff: Handoff, received: Received
    ) -> AsyncIterator[Chunk]:
        raise NotImplementedError

    def abort(self, request_id: str) -> bool:
        raise NotImplementedError


def make(engine: Engine, *, max_claims: int = 100, **admission: Any) -> Intake:
    return Intake(
        Settings(
            admission={"reserved_output_blocks": 0, **admission},
            limits={"max_claims": max_claims},
        ),
        engine,
    )


def sized(tag: str, prompt: int, answer: int = 10) -> RawMessage:
    return {"headers": {SIZE_HEADER: [prompt, answer]}, "properties": {"delivery_tag": tag}}


def look(intake: Intake, *messages: RawMessage) -> list[Verdict]:
    it = intake.open()
    assert it is not None
    return [it.judge(message) for message in messages]
