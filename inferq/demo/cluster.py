"""A cluster on this machine: a Redis and worker processes, for as long as something is shown."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from inferq.demo.chat import Chat
from inferq.demo.engines import environment
from inferq.demo.interrupts import Interrupts
from inferq.demo.live import make_console, print_error
from inferq.demo.processes import ProcessFailed
from inferq.demo.stage import Stage, forget_topic
from inferq.errors import InferqError
from inferq.settings import Settings

HOST = "demo"
GUARD_EVERY_S = 0.2
#: Settings that say which Redis to use; without them the demo starts its own.
ADDRESS = frozenset({"scheduler_url", "scheduler_host", "scheduler_port"})
#: Nodes share this machine.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

#: Shows something on a cluster that is ready; returns the exit status.
Show = Callable[[Settings, Stage, Console], Coroutine[Any, Any, int]]


@dataclass(frozen=True)
class Cluster:
    """What to start. ``nodes`` has the worker's options by node, ``settings`` are those of all."""

    scheduler: str
    nodes: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]


def run_cluster(cluster: Cluster, headline: str, show: Show) -> int:
    """Start a cluster and show something on it; returns the exit status, 1 after an error.

    Whatever happens, the processes it has started are ended.

    Raises:
        KeyboardInterrupt: it was ended by a signal.
    """
    interrupts = Interrupts()
    interrupts.install()
    try:
        return _run(cluster, headline, show, interrupts)
    except ProcessFailed as exc:
        print_error(exc, exc.log)
    except InferqError as exc:
        print_error(exc)
    return 1


def _run(cluster: Cluster, headline: str, show: Show, interrupts: Interrupts) -> int:
    console = make_console()
    with Stage() as stage:
        settings = _settings(cluster.scheduler, stage)
        env = _node_env(cluster, settings)
        console.print(Text(headline))
        try:
            for name, options in cluster.nodes.items():
                stage.start_node(name, env, *options)
                interrupts.check()
            stage.wait_ready(settings, interrupts.check)
            return interrupts.run(show(settings, stage, console))
        finally:
            stage.end_nodes()
            forget_topic(settings)


def _settings(scheduler: str, stage: Stage) -> Settings:
    """The settings of the producer: those of environment and files, with a Redis that is there."""
    values = {"scheduler_name": scheduler, "scheduler_topic": f"demo-{secrets.token_hex(8)}"}
    given = Settings(**values)
    if not given.model_fields_set & ADDRESS:
        given = Settings(**values, scheduler_url=stage.start_server())
    return given


def _node_env(cluster: Cluster, settings: Settings) -> dict[str, str]:
    same = {"scheduler_name": cluster.scheduler, "scheduler_topic": settings.scheduler_topic}
    if settings.scheduler_url:
        same["scheduler_url"] = settings.scheduler_url
    return environment({**cluster.settings, **same}) | ONE_THREAD


async def talk(
    chat: Chat, stage: Stage, console: Console, stop: asyncio.Event, *, spare: int
) -> None:
    """Run a chat to its end, or until more than ``spare`` nodes are gone: it would not end then.

    Raises:
        ProcessFailed: that is so.
    """

    async def guard() -> None:
        while len(stage.ended_nodes) <= spare:  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(GUARD_EVERY_S)
        stop.set()

    watch = asyncio.ensure_future(guard())
    try:
        await chat.run(stop)
    finally:
        watch.cancel()
    if len(stage.ended_nodes) > spare:
        raise stage.why_ended(stage.ended_nodes[0])
    if stop.is_set():
        console.print("cancelled")
