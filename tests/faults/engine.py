"""An engine for fault tests: token ``i`` of every answer is ``i``, at the pace a request asks for.

The first prompt token is the time between two tokens in milliseconds. What happens to requests
goes into a journal, a file that all nodes of a test append to. Its room comes from the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from inferq.engines import Capacity, Chunk, Engine
from inferq.errors import RequestTooLarge
from inferq.messages import FinishReason, Handoff, Request
from inferq.settings import Settings

JOURNAL = "FAULTS_JOURNAL"
SLOTS, BLOCKS, MODEL_LEN = "FAULTS_SLOTS", "FAULTS_BLOCKS", "FAULTS_MODEL_LEN"
BLOCK_SIZE = 16
#: As the first prompt token: the process that starts this request dies.
POISON = 66_666
TOKENS_PER_BATCH = 65_536


class Entry(NamedTuple):
    """A line of the journal: ``what`` is start, end or abort; ``pid`` is the node's process."""

    what: str
    pid: int
    request_id: str


class Journal:
    """Appends lines that several processes may write at once, and reads them all."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file = self._path.open("ab", buffering=0)

    def write(self, what: str, request_id: str) -> None:
        """Append one line, in one system call."""
        self._file.write(f"{what} {os.getpid()} {request_id}\n".encode())

    def read(self) -> list[Entry]:
        """All lines so far."""
        lines = self._path.read_text().splitlines()
        return [Entry(what, int(pid), name) for what, pid, name in map(str.split, lines)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class CountingEngine(Engine):
    """Counts; ``max_tokens`` is the length of every answer."""

    def __init__(self) -> None:
        self._slots = int(os.environ.get(SLOTS, "64"))
        self._total_blocks = int(os.environ.get(BLOCKS, "4096"))
        self._model_len = int(os.environ.get(MODEL_LEN, "8192"))
        self._journal = Journal(os.environ.get(JOURNAL, os.devnull))
        self._blocks: dict[str, int] = {}
        self._aborted: set[str] = set()

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """End all iterators at their next step."""
        self._aborted |= self._blocks.keys()

    def capacity(self) -> Capacity:
        """Blocks of what runs are taken, prompt and answer at once."""
        return Capacity(
            block_size=BLOCK_SIZE,
            total_blocks=self._total_blocks,
            free_blocks=max(0, self._total_blocks - sum(list(self._blocks.values()))),
            total_slots=self._slots,
            free_slots=max(0, self._slots - len(self._blocks)),
            tokens_per_batch=TOKENS_PER_BATCH,
            max_model_len=self._model_len,
        )

    def count_tokens(self, request: Request) -> int:
        """Length of the prompt; text counts a token a character."""
        return len(request.prompt_token_ids or request.prompt or "x")

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The whole answer."""
        size = self.count_tokens(request) + request.max_tokens
        if size > min(self._model_len, self._total_blocks * BLOCK_SIZE):
            raise RequestTooLarge("max_tokens", f"{size} tokens can never fit")
        return self._count(request, -(-size // BLOCK_SIZE))

    def prefill(self, request: Request) -> AsyncIterator[Chunk]:
        """Mixed nodes only."""
        raise NotImplementedError

    def decode(self, request: Request, handoff: Handoff) -> AsyncIterator[Chunk]:
        """Mixed nodes only."""
        raise NotImplementedError

    def abort(self, request_id: str) -> bool:
        """The iterator ends at its next step."""
        if request_id not in self._blocks:
            return False
        self._aborted.add(request_id)
        return True

    async def _count(self, request: Request, blocks: int) -> AsyncIterator[Chunk]:
        name = request.request_id
        pace_s = (request.prompt_token_ids or (0,))[0] / 1000
        self._blocks[name] = blocks
        self._journal.write("start", name)
        if pace_s == POISON / 1000:
            os.kill(os.getpid(), signal.SIGKILL)
        what = "abort"
        due_at = time.monotonic()
        try:
            for token in range(request.max_tokens):
                due_at += pace_s
                await asyncio.sleep(max(0.0, due_at - time.monotonic()))
                if name in self._aborted:
                    yield Chunk(finish_reason=FinishReason.CANCELLED.value)
                    return
                is_last = token + 1 == request.max_tokens
                if is_last:
                    what = "end"
                yield Chunk((token,), "", FinishReason.LENGTH.value if is_last else None)
        finally:
            self._journal.write(what, name)
            self._aborted.discard(name)
            del self._blocks[name]


def factory(settings: Settings) -> Engine:
    """What ``engine = "tests.faults.engine:factory"`` calls."""
    del settings
    return CountingEngine()
