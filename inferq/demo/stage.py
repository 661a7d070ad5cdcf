"""The stage of a cluster: a Redis and worker processes, all on this machine."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from inferq.cluster.link import AWAY, Link, connection_pool, explained
from inferq.cluster.topic import Topic
from inferq.cluster.view import NodeView, View
from inferq.demo.processes import Child, ProcessFailed, end_all
from inferq.demo.server import start_server
from inferq.settings import Settings

#: A node loads its model meanwhile.
READY_S = 120.0
LOOK_EVERY_S = 0.02


class Stage:
    """Ends all that it started when its block is left, nodes first."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="inferq-")
        self.server: Child | None = None
        self.nodes: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.end_nodes()
        finally:
            end_all([self.server] if self.server is not None else [])
            self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Where logs are, as long as the stage stands."""
        return Path(self._folder.name)

    def start_server(self) -> str:
        """Start a private Redis; returns its URL. Raises ProcessFailed."""
        self.server, url = start_server(self.folder)
        return url

    def start_node(
        self,
        name: str,
        env: Mapping[str, str],
        *options: str,
        module: Sequence[str] = ("-m", "celery"),
    ) -> Child:
        """Start a worker process; ``name`` is ``something@host``, ``env`` has its settings."""
        worker = ("-A", "inferq", "worker", "-n", name, "--loglevel", "WARNING", *options)
        node = Child(
            name,
            [sys.executable, *module, *worker],
            folder=self.folder,
            env={**os.environ, **env},
        )
        self.nodes.append(node)
        return node

    @property
    def ended_nodes(self) -> list[Child]:
        """The nodes that do not run any more."""
        return [node for node in self.nodes if not node.running]

    def why_ended(self, node: Child) -> ProcessFailed:
        """The error that says how a node has ended."""
        return ProcessFailed(f"{node.name} ended with {node.process.poll()}", node.log_tail())

    def end_nodes(self) -> None:
        """End all nodes; the server remains."""
        end_all(self.nodes)

    def wait_ready(
        self,
        settings: Settings,
        check: Callable[[], None] = lambda: None,
        timeout_s: float = READY_S,
    ) -> None:
        """Wait until all nodes can be sent to, while ``check`` raises nothing.

        Raises:
            ProcessFailed: one has ended, or does not get ready.
            SchedulerUnavailable: Redis cannot be reached.
        """
        give_up_at = time.monotonic() + timeout_s
        names = {node.name for node in self.nodes}
        while True:
            check()
            ready = {n.name for n in look_at_nodes(settings) if n.live and n.state == "ready"}
            if names <= ready:
                return
            for node in self.ended_nodes:
                raise self.why_ended(node)
            for node in self.nodes:
                if node.name not in ready and time.monotonic() > give_up_at:
                    raise ProcessFailed(f"{node.name} is not ready", node.log_tail())
            time.sleep(LOOK_EVERY_S)


def forget_topic(settings: Settings) -> None:
    """Delete all that a topic has in Redis, whose name nothing else has in its own; at best."""
    with (
        suppress(redis.exceptions.RedisError),
        redis.Redis(connection_pool=connection_pool(settings)) as client,
    ):
        for key in client.scan_iter(f"*{settings.scheduler_topic}*", count=1000):
            client.unlink(key)


def look_at_nodes(settings: Settings) -> list[NodeView]:
    """All nodes of the topic, as they are now.

    Raises:
        SchedulerUnavailable: Redis cannot be reached.
    """
    topic = Topic(settings, Link(settings))
    try:
        return View(topic).nodes()
    except AWAY as exc:
        raise explained(exc) from None
    finally:
        topic.link.close()
