"""A load: many synthetic requests, each at its time, and counters instead of texts."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from inferq.client import AsyncClient
from inferq.demo.drive import drive, sleep_until
from inferq.demo.live import Screen, gauges, kv_text
from inferq.demo.options import Options
from inferq.demo.prompts import synthetic_prompt
from inferq.demo.records import Record, failed_record, record_end
from inferq.demo.workload import Arrival
from inferq.errors import InferqError

#: Arrivals wait when this many requests have not ended: a bound on this process's memory.
MOST_OUTSTANDING = 10_000
THROUGHPUT_OVER_S = 3.0
#: Ids of models other than the simulated one; all common vocabularies are larger.
MODEL_VOCAB = 32_000


class Load:
    """Submits requests at their arrival times and records their ends.

    ``late_s`` is the most that a submit came after its arrival time.
    """

    def __init__(
        self, client: AsyncClient, options: Options, arrivals: list[Arrival], console: Console
    ) -> None:
        self._client = client
        self._options = options
        self._arrivals = arrivals
        self._screen = Screen(console, self._draw, self._line)
        simulated = options.engine == "simulated"
        self._vocab = client.settings.simulated.vocab_size if simulated else MODEL_VOCAB
        self._room = asyncio.Semaphore(MOST_OUTSTANDING)
        self._started_at = asyncio.get_running_loop().time()
        self._recent: deque[tuple[float, int]] = deque()
        self._ends: Counter[str] = Counter()
        self.records: list[Record] = []
        self.submitted = 0
        self.late_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return asyncio.get_running_loop().time() - self._started_at

    async def run(self, stop: asyncio.Event) -> None:
        """Submit all, and wait until all have ended."""
        await drive(self._client, self._all(stop), self._screen, stop)

    async def _all(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            for index, arrival in enumerate(self._arrivals):
                due_s = arrival.at_s / self._options.speedup
                await sleep_until(self._started_at + due_s, stop)
                await self._room.acquire()
                if stop.is_set():
                    break
                self.late_s = max(self.late_s, self.elapsed_s - due_s)
                tasks.create_task(self._one(index, arrival))

    async def _one(self, index: int, arrival: Arrival) -> None:
        self.submitted += 1
        most = self._options.max_tokens or arrival.max_tokens
        prompt = synthetic_prompt(
            arrival.prompt_tokens,
            key=f"{self._options.seed} {index}",
            vocab=self._vocab,
            hash_ids=arrival.hash_ids,
        )
        try:
            handle = await self._client.submit(
                prompt_token_ids=prompt,
                max_tokens=min(most, arrival.max_tokens),
                seed=(self._options.seed + index) % 2**32,
            )
            del prompt
            record = await record_end(handle)
        except InferqError as exc:
            record = failed_record(exc)
        finally:
            self._room.release()
        self.records.append(record)
        self._ends[record.end] += 1
        self._recent.append((self.elapsed_s, record.tokens))

    def _throughput(self) -> tuple[float, float]:
        """Requests and tokens a second, of the requests that ended in the last seconds."""
        now_s = self.elapsed_s
        while self._recent and self._recent[0][0] < now_s - THROUGHPUT_OVER_S:
            self._recent.popleft()
        over_s = max(0.1, min(now_s, THROUGHPUT_OVER_S))
        return len(self._recent) / over_s, sum(tokens for _, tokens in self._recent) / over_s

    def _line(self) -> str:
        counts = self._client.counts()
        requests, tokens = self._throughput()
        return (
            f"{self.elapsed_s:6.1f} s  submitted {self.submitted}/{len(self._arrivals)}  "
            f"ended {len(self.records)}  queue {counts.waiting}  running {counts.running}  "
            f"{kv_text(counts)}  {requests:.1f} requests/s  {tokens:.0f} tokens/s"
        )

    def _draw(self) -> RenderableType:
        requests, tokens = self._throughput()
        ends = ", ".join(f"{count} {end}" for end, count in self._ends.items()) or "none yet"
        grid = Table.grid(padding=(0, 2))
        for name, done in (("submitted", self.submitted), ("ended", len(self.records))):
            total = len(self._arrivals)
            bar = ProgressBar(total=total, completed=done, width=40)
            grid.add_row(name, bar, f"{done}/{total}")
        return Group(
            gauges(self._client.counts()),
            grid,
            f"{self.elapsed_s:.1f} s, ends: {ends}",
            f"{requests:.1f} requests/s, {tokens:.0f} tokens/s",
        )
