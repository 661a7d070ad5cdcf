"""Global mode on one machine: a Redis, some worker processes, and one that steals."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from inferq.app import kombu_url
from inferq.client import AsyncClient
from inferq.demo.chat import Chat
from inferq.demo.drive import stop_on_interrupt
from inferq.demo.live import make_console, print_error
from inferq.demo.options import GlobalOptions, parse_global
from inferq.demo.places import print_nodes, print_places
from inferq.demo.processes import ProcessFailed
from inferq.demo.records import Record
from inferq.demo.report import print_answers, total_line
from inferq.demo.stage import Stage, look_at_nodes
from inferq.demo.watch import Watch
from inferq.errors import InferqError
from inferq.settings import Settings

#: What a shell expects of a program that was ended by Ctrl-C.
INTERRUPTED = 130
HOST = "demo"
#: So that a thief leaves nothing to wait: one request more than none is worth stealing.
MIN_LOAD_SCORE = 1
#: Settings that say which Redis to use; without them the demo starts its own.
ADDRESS = frozenset({"scheduler_url", "scheduler_host", "scheduler_port"})


def main(argv: Sequence[str]) -> int:
    """Run the demo; returns the exit status: 0, 1 after an error, 130 after Ctrl-C.

    Whatever happens, the processes it has started are ended.
    """
    options = parse_global(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return _run(options, make_console())
    except ProcessFailed as exc:
        print_error(exc, exc.log)
    except InferqError as exc:
        print_error(exc)
    return 1


def _run(options: GlobalOptions, console: Console) -> int:
    with Stage() as stage:
        settings = _settings(stage)
        names = [f"gpu{number}@{HOST}" for number in range(options.nodes)]
        console.print(
            Text(f"{options.nodes} nodes, engine {options.engine}, {options.requests} prompts")
        )
        with Watch(kombu_url(settings)) as watch:
            for name in names:
                stage.start_node(name, _node_env(settings, options), "--task-events")
            stage.wait_ready(settings)
            watch.wait_heard(names)
            return asyncio.run(_talk(settings, options, console, watch, names[0]))


def _settings(stage: Stage) -> Settings:
    """The settings of the producer: those of environment and files, with a Redis that is there."""
    given = Settings(scheduler_name="global")
    if not given.model_fields_set & ADDRESS:
        given = Settings(scheduler_name="global", scheduler_url=stage.start_server())
    return given


def _node_env(settings: Settings, options: GlobalOptions) -> dict[str, str]:
    """The settings of a node, one thread each: they share this machine."""
    env: dict[str, Any] = {
        "INFERQ_SCHEDULER_NAME": "global",
        "INFERQ_ENGINE": options.engine,
        f"INFERQ_{options.engine.upper()}__MAX_SLOTS": options.slots,
        "INFERQ_SCHEDULER_MIN_LOAD_SCORE": MIN_LOAD_SCORE,
        "OMP_NUM_THREADS": 1,
        "OMP_WAIT_POLICY": "passive",
    }
    if settings.scheduler_url:
        env["INFERQ_SCHEDULER_URL"] = settings.scheduler_url
    if options.engine == "llamacpp":
        env["INFERQ_LLAMACPP__THREADS"] = 1
    if options.model is not None:
        env["INFERQ_LLAMACPP__MODEL"] = options.model
    if options.engine == "simulated":
        env["INFERQ_SIMULATED__SPEEDUP"] = options.speedup
    return {name: str(value) for name, value in env.items()}


async def _talk(
    settings: Settings, options: GlobalOptions, console: Console, watch: Watch, first: str
) -> int:
    """Send every prompt to the first node, and show who answers."""
    stop = stop_on_interrupt()
    console.print(Text(f"all prompts go to {first}; the others are idle, and steal"))
    started_at = time.monotonic()
    async with AsyncClient(settings, node=first) as client:
        chat = Chat(client, options, console, watch.node_of)
        await chat.run(stop)
        wall_s = time.monotonic() - started_at
        nodes = await asyncio.to_thread(look_at_nodes, settings)
    if stop.is_set():
        console.print("cancelled")
    print_answers(console, chat.rows)
    print_places(console, chat.rows, watch.node_of, first)
    records = [row.record or Record("cancelled") for row in chat.rows]
    console.print(Text(total_line(records, wall_s)), soft_wrap=True)
    print_nodes(console, nodes, chat.rows, watch.node_of)
    return INTERRUPTED if stop.is_set() else 0
