"""Real prompts, all submitted at once; a line on the screen for each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from inferq.client import AsyncClient, AsyncHandle
from inferq.demo.drive import drive
from inferq.demo.live import Screen, gauges, printable
from inferq.demo.options import CHAT_MAX_TOKENS
from inferq.demo.prompts import chat_prompts
from inferq.demo.records import Record, failed_record, record_end
from inferq.errors import InferqError
from inferq.messages import Crossing

TEMPERATURE = 0.3
TAIL_CHARACTERS = 300
STATE_STYLES = {"queued": "dim", "prefill": "yellow", "decode": "cyan", "finished": "green"}


class ChatOptions(Protocol):
    """What a chat needs to know."""

    @property
    def requests(self) -> int:
        """How many prompts."""

    @property
    def max_tokens(self) -> int | None:
        """Of an answer."""

    @property
    def seed(self) -> int:
        """Of sampling."""


@dataclass
class Row:
    """A request on the screen.

    ``attempt`` is the one that answers, from 0; ``node`` ended it, empty when none did;
    ``crossing`` says where it was prefilled, if that was another node.
    """

    number: int
    prompt: str
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    record: Record | None = None
    attempt: int = 0
    node: str = ""
    crossing: Crossing | None = None

    @property
    def tokens(self) -> int:
        """How many have come."""
        return len(self.token_ids)

    @property
    def outcome(self) -> Record:
        """What became of it; what has not ended was cancelled."""
        return self.record or Record("cancelled")


def short_name(node: str) -> str:
    """A node's name without its host."""
    return node.partition("@")[0]


def row_states(rows: list[Row], waiting: int) -> list[str]:
    """The state of each row: queued, prefill, decode, or how it ended.

    Requests of equal priority leave the queue in order: of those without a token yet, the
    last ``waiting`` are in the queue.
    """
    states = []
    silent = sum(row.record is None and row.tokens == 0 for row in rows)
    for row in rows:
        if row.record is not None:
            states.append(row.record.end)
        elif row.tokens > 0:
            states.append("decode")
        else:
            states.append("prefill" if silent > waiting else "queued")
            silent -= 1
    return states


class Chat:
    """Submits the prompts and follows each answer; with ``many_nodes`` it shows who gave it."""

    def __init__(
        self,
        client: AsyncClient,
        options: ChatOptions,
        console: Console,
        *,
        many_nodes: bool = False,
        temperature: float = TEMPERATURE,
    ) -> None:
        self._client = client
        self._many_nodes = many_nodes
        self._temperature = temperature
        self._options = options
        self._max_tokens = options.max_tokens or CHAT_MAX_TOKENS
        self._screen = Screen(console, self._draw)
        prompts = chat_prompts(options.requests)
        self.rows = [Row(number, prompt) for number, prompt in enumerate(prompts, 1)]

    async def run(self, stop: asyncio.Event) -> None:
        """Submit all, and wait until all have ended."""
        await drive(self._client, self._all(), self._screen, stop)

    async def _all(self) -> None:
        await asyncio.gather(*(self._follow(row) for row in self.rows))

    async def _follow(self, row: Row) -> None:
        try:
            handle = await self._client.submit(
                messages=[{"role": "user", "content": row.prompt}],
                max_tokens=self._max_tokens,
                temperature=self._temperature,
                seed=self._options.seed + row.number,
            )
            row.record = await self._stream(handle, row)
        except InferqError as exc:
            row.record = replace(failed_record(exc), tokens=row.tokens)
        self._screen.write(self._plain(row, row.record))

    async def _stream(self, handle: AsyncHandle, row: Row) -> Record:
        async for output in handle.stream():
            if output.restarted:
                row.token_ids, row.text = [], ""
            row.attempt, row.node, row.crossing = output.attempt, output.node, output.crossing
            row.token_ids += output.token_ids
            row.text += output.text
        return await record_end(handle)

    def _plain(self, row: Row, record: Record) -> str:
        took = "" if record.timings is None else f" after {record.timings.e2e_s:.2f} s"
        why = f": {printable(record.error, one_line=True)}" if record.error else ""
        return f"#{row.number} {record.end}{took}, {row.tokens} tokens{why}"

    @property
    def _state_width(self) -> int:
        return 20 if self._many_nodes else 9

    def _state(self, row: Row, state: str) -> str:
        """The state, and the short name of the node that answered."""
        return f"{state} {short_name(row.node)}" if self._many_nodes else state

    def _draw(self) -> RenderableType:
        counts = self._client.counts()
        table = Table.grid(padding=(0, 1))
        for justify, width in (
            ("right", 3),
            ("left", self._state_width),
            ("left", 16),
            ("right", 7),
        ):
            table.add_column(justify=justify, width=width, no_wrap=True)  # type: ignore[arg-type]
        table.add_column(ratio=1, no_wrap=True, overflow="crop")
        table.expand = True
        for row, state in zip(self.rows, row_states(self.rows, counts.waiting), strict=True):
            style = STATE_STYLES.get(state, "red")
            table.add_row(
                f"#{row.number}",
                Text(self._state(row, state), style=style),
                ProgressBar(total=self._max_tokens, completed=row.tokens, width=16),
                f"{row.tokens}/{self._max_tokens}",
                Text(self._tail(row), style="" if row.text else "dim"),
            )
        return Group(gauges(counts), table)

    def _tail(self, row: Row) -> str:
        """The newest words of the answer that fit, or the prompt as long as there are none."""
        text = printable((row.text or row.prompt)[-TAIL_CHARACTERS:], one_line=True)
        room = max(10, self._screen.width - 32 - self._state_width)
        return text if len(text) <= room or not row.text else "…" + text[1 - room :]
