"""Global mode on one machine: a Redis, some worker processes, and one that steals."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from inferq.client import AsyncClient
from inferq.demo.chat import Chat, Row
from inferq.demo.drive import stop_on_interrupt
from inferq.demo.interrupts import Interrupts
from inferq.demo.live import make_console, print_error
from inferq.demo.options import GlobalOptions, parse_global
from inferq.demo.places import print_nodes, print_places
from inferq.demo.processes import ProcessFailed
from inferq.demo.records import Record
from inferq.demo.report import print_answers, total_line
from inferq.demo.stage import Stage, forget_topic, look_at_nodes
from inferq.errors import InferqError
from inferq.settings import Settings

#: What a shell expects of a program that was ended by Ctrl-C.
INTERRUPTED = 130
HOST = "demo"
#: So that a thief leaves nothing to wait: one request more than none is worth stealing.
MIN_LOAD_SCORE = 1
GUARD_EVERY_S = 0.2
#: Settings that say which Redis to use; without them the demo starts its own.
ADDRESS = frozenset({"scheduler_url", "scheduler_host", "scheduler_port"})


def main(argv: Sequence[str]) -> int:
    """Run the demo; returns the exit status: 0, 1 after an error, 130 after Ctrl-C.

    Whatever happens, the processes it has started are ended.
    """
    options = parse_global(argv)
    interrupts = Interrupts()
    interrupts.install()
    try:
        return _run(options, make_console(), interrupts)
    except ProcessFailed as exc:
        print_error(exc, exc.log)
    except InferqError as exc:
        print_error(exc)
    return 1


def _run(options: GlobalOptions, console: Console, interrupts: Interrupts) -> int:
    with Stage() as stage:
        settings = _settings(stage)
        names = [f"gpu{number}@{HOST}" for number in range(options.nodes)]
        console.print(
            Text(f"{options.nodes} nodes, engine {options.engine}, {options.requests} prompts")
        )
        try:
            for name in names:
                stage.start_node(name, _node_env(settings, options))
                interrupts.check()
            stage.wait_ready(settings, interrupts.check)
            return interrupts.run(_Talk(settings, options, stage).run(console))
        finally:
            stage.end_nodes()
            forget_topic(settings)


def _settings(stage: Stage) -> Settings:
    """The settings of the producer: those of environment and files, with a Redis that is there."""
    values = {"scheduler_name": "global", "scheduler_topic": f"demo-{secrets.token_hex(8)}"}
    given = Settings(**values)
    if not given.model_fields_set & ADDRESS:
        given = Settings(**values, scheduler_url=stage.start_server())
    return given


def _node_env(settings: Settings, options: GlobalOptions) -> dict[str, str]:
    """The settings of a node, one thread each: they share this machine."""
    env: dict[str, Any] = {
        "INFERQ_SCHEDULER_NAME": "global",
        "INFERQ_SCHEDULER_TOPIC": settings.scheduler_topic,
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


class _Talk:
    """Sends every prompt to the first node, and shows who answers."""

    def __init__(self, settings: Settings, options: GlobalOptions, stage: Stage) -> None:
        self._settings = settings
        self._options = options
        self._stage = stage

    async def run(self, console: Console) -> int:
        """Returns the exit status. Raises ProcessFailed: no node is left."""
        stop = stop_on_interrupt()
        first = self._stage.nodes[0].name
        console.print(Text(f"all prompts go to {first}; the others are idle, and steal"))
        started_at = time.monotonic()
        async with AsyncClient(self._settings, node=first) as client:
            chat = Chat(client, self._options, console, many_nodes=True)
            guard = asyncio.ensure_future(self._guard(stop))
            await chat.run(stop)
            guard.cancel()
        if not self._stage.any_node_runs:
            raise self._stage.why_ended(self._stage.nodes[0])
        if stop.is_set():
            console.print("cancelled")
        self._report(console, chat.rows, time.monotonic() - started_at)
        return INTERRUPTED if stop.is_set() else 0

    async def _guard(self, stop: asyncio.Event) -> None:
        """One node is enough to go on; without any, nothing would ever end."""
        while self._stage.any_node_runs:  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(GUARD_EVERY_S)
        stop.set()

    def _report(self, console: Console, rows: Sequence[Row], wall_s: float) -> None:
        print_answers(console, rows)
        print_places(console, rows, self._stage.nodes[0].name)
        records = [row.record or Record("cancelled") for row in rows]
        console.print(Text(total_line(records, wall_s)), soft_wrap=True)
        print_nodes(console, look_at_nodes(self._settings), rows)
