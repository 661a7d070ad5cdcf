"""Puts the demo together: arguments, client, the run, the report."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from inferq.client import AsyncClient
from inferq.demo import global_mode, splitwise
from inferq.demo.chat import Chat
from inferq.demo.drive import INTERRUPTED, stop_on_interrupt
from inferq.demo.engines import engine_settings
from inferq.demo.live import make_console, print_error
from inferq.demo.load import Load
from inferq.demo.options import (
    GLOBAL_MODE,
    LOAD_MAX_TOKENS,
    SPLITWISE_MODE,
    Options,
    parse,
)
from inferq.demo.report import print_answers, print_load, print_requests
from inferq.demo.traces import read_trace
from inferq.demo.workload import Arrival, synthetic_load
from inferq.errors import InferqError
from inferq.settings import Settings

MODES = {GLOBAL_MODE: global_mode.main, SPLITWISE_MODE: splitwise.main}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status: 0, 1 after an error, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in MODES:
        return MODES[arguments[0]](arguments[1:])
    options = parse(arguments)
    console = make_console()
    try:
        return asyncio.run(_run(options, console))
    except InferqError as exc:
        print_error(exc)
        return 1


def make_arrivals(options: Options) -> list[Arrival]:
    """The load: a trace's, or a synthetic one."""
    if options.trace is not None:
        return read_trace(options.trace, options.requests)
    return synthetic_load(
        options.requests,
        rate=options.rate,
        cv=options.arrival_cv,
        prompt_tokens=options.prompt_tokens,
        max_tokens=options.max_tokens or LOAD_MAX_TOKENS,
        seed=options.seed,
    )


async def _run(options: Options, console: Console) -> int:
    stop = stop_on_interrupt()
    arrivals = make_arrivals(options) if options.load else []
    console.print(Text(_headline(options, arrivals)), soft_wrap=True)
    async with AsyncClient(Settings(**engine_settings(options))) as client:
        if options.load:
            await _load(client, options, arrivals, console, stop)
        else:
            await _chat(client, options, console, stop)
    return INTERRUPTED if stop.is_set() else 0


def _headline(options: Options, arrivals: list[Arrival]) -> str:
    engine = f"engine {options.engine}" + (f" ({options.model})" if options.model else "")
    if not options.load:
        return f"{options.requests} prompts, {engine}"
    what = f"the trace {options.trace}" if options.trace else "a synthetic load"
    if not options.trace:
        what += f" at {options.rate:g} requests/s, arrival CV {options.arrival_cv:g}"
    return f"{len(arrivals)} requests of {what}, {engine}, speedup {options.speedup:g}"


async def _chat(
    client: AsyncClient, options: Options, console: Console, stop: asyncio.Event
) -> None:
    started_at = time.monotonic()
    chat = Chat(client, options, console)
    await chat.run(stop)
    wall_s = time.monotonic() - started_at
    if stop.is_set():
        console.print("cancelled")
    print_answers(console, chat.rows)
    print_requests(console, chat.rows, wall_s)


async def _load(
    client: AsyncClient,
    options: Options,
    arrivals: list[Arrival],
    console: Console,
    stop: asyncio.Event,
) -> None:
    load = Load(client, options, arrivals, console)
    await load.run(stop)
    wall_s = load.elapsed_s
    if stop.is_set():
        left = len(arrivals) - load.submitted
        console.print(f"cancelled; {left} of {len(arrivals)} requests were not submitted")
    print_load(console, load.records, wall_s=wall_s, late_s=load.late_s, speedup=options.speedup)
