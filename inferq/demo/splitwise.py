"""Splitwise mode: one node prefills, another decodes, and a single engine does it all again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from inferq.client import AsyncClient
from inferq.demo.chat import Chat, Row
from inferq.demo.cluster import HOST, Cluster, run_cluster, talk
from inferq.demo.crossings import find_faults, print_comparison, print_crossings
from inferq.demo.drive import INTERRUPTED, stop_on_interrupt
from inferq.demo.engines import node_settings
from inferq.demo.live import print_error
from inferq.demo.options import SPLITWISE_MODE, ClusterOptions, parse_splitwise
from inferq.demo.report import print_answers, print_total
from inferq.demo.stage import Stage
from inferq.errors import InferqError
from inferq.settings import Settings

#: Numbers of llama.cpp depend on what else is in a batch: one request at a time, on each engine,
#: makes the batches of two nodes those of one.
SLOTS = 1
PREFILL, DECODE = f"prefill0@{HOST}", f"decode0@{HOST}"


class AnswersDiffer(InferqError):
    """Raised when two nodes did not do what one does."""

    code = "answers_differ"


def main(argv: Sequence[str]) -> int:
    """Run the demo; returns the exit status: 0, 1 after an error, 130 after Ctrl-C.

    It is an error when a KV cache did not cross, or an answer is not that of a single engine.
    """
    options = parse_splitwise(argv)
    cluster = Cluster(
        scheduler=SPLITWISE_MODE,
        nodes={PREFILL: ("--role", "prefill"), DECODE: ("--role", "decode")},
        settings=node_settings(options, SLOTS),
    )
    headline = (
        f"a prefill node and a decode node, engine {options.engine}, {options.requests} prompts"
    )
    return run_cluster(cluster, headline, _Show(options))


class _Show:
    def __init__(self, options: ClusterOptions) -> None:
        self._options = options

    async def __call__(self, settings: Settings, stage: Stage, console: Console) -> int:
        stop = stop_on_interrupt()
        rows = await self._on_two_nodes(settings, stage, console, stop)
        alone = [] if stop.is_set() else await self._alone(console, stop)
        print_crossings(console, rows)
        print_comparison(console, rows, [] if stop.is_set() else alone)
        if stop.is_set():
            return INTERRUPTED
        return _judge(console, rows, alone)

    async def _on_two_nodes(
        self, settings: Settings, stage: Stage, console: Console, stop: asyncio.Event
    ) -> list[Row]:
        console.print(Text(f"{PREFILL} computes KV caches and first tokens, {DECODE} the rest"))
        started_at = time.monotonic()
        async with AsyncClient(settings) as client:
            chat = Chat(client, self._options, console, many_nodes=True, temperature=0)
            await talk(chat, stage, console, stop, spare=0)
        print_answers(console, chat.rows)
        print_total(console, chat.rows, time.monotonic() - started_at)
        return chat.rows

    async def _alone(self, console: Console, stop: asyncio.Event) -> list[Row]:
        """The same requests in local mode, in this process."""
        console.print(Text("the same prompts on a single engine, which does both"))
        settings = Settings(
            scheduler_name="local", role="mixed", **node_settings(self._options, SLOTS)
        )
        async with AsyncClient(settings) as client:
            chat = Chat(client, self._options, console, temperature=0)
            await chat.run(stop)
        if stop.is_set():
            console.print("cancelled")
        return chat.rows


def _judge(console: Console, rows: Sequence[Row], alone: Sequence[Row]) -> int:
    """Say whether all went as it must; returns the exit status."""
    console.print(
        Text(
            "compared: every token of each answer with that of the single engine, at temperature 0 "
            "and with the same seeds; each engine computes one request at a time, so that their "
            "batches hold the same rows"
        ),
        soft_wrap=True,
    )
    faults = find_faults(rows, alone)
    if faults:
        error = AnswersDiffer(f"{len(faults)} of {len(rows)} requests did not go as they must")
        print_error(error, "\n".join(faults))
        return 1
    tokens = sum(row.tokens for row in rows)
    console.print(Text(f"all {len(rows)} answers are equal, {tokens} tokens"))
    return 0
