"""What the benchmarks of global mode set up: a Redis, nodes, a producer, a meter."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis

from benchmarks.cluster_costs import Meter
from benchmarks.cluster_stock import URL_VARIABLE, connect
from inferq import Client, Settings
from inferq.demo.processes import Child
from inferq.demo.stage import Stage

PROFILED = ("-m", "benchmarks.cluster_profile")
CELERY = ("-m", "celery")


class Setup(NamedTuple):
    """A producer beside running nodes. ``names`` of the nodes."""

    client: Client
    meter: Meter
    names: tuple[str, ...]
    stage: Stage
    settings: Settings

    def add(self, engine: str) -> None:
        """Start one node more."""
        start(self.stage, self.settings, f"node{len(self.stage.nodes)}@benchmark", engine)
        self.stage.wait_ready(self.settings)

    def client_of(self, node: str) -> Client:
        """Another producer, which sends to this node."""
        return Client(self.settings, node=node)


@contextmanager
def nodes(
    engines: Sequence[str], *, roles: Sequence[str] = (), profiled: bool = False, **values: Any
) -> Iterator[Setup]:
    """A node for each engine. ``roles``: of the nodes, mixed if not given; ``values``: further
    settings of nodes and producer.
    """
    with Stage() as stage:
        url = stage.start_server()
        settings = Settings(**{"scheduler_name": "global", "scheduler_url": url, **values})
        names = tuple(f"node{number}@benchmark" for number in range(len(engines)))
        for name, engine, role in zip(
            names, engines, roles or ["mixed"] * len(engines), strict=True
        ):
            start(stage, settings, name, engine, role=role, profiled=profiled)
            stage.wait_ready(settings)
        with Client(settings) as client:
            meter = Meter(url, [node.pid for node in stage.nodes])
            yield Setup(client, meter, names, stage, settings)
            meter.close()


def start(
    stage: Stage,
    settings: Settings,
    name: str,
    engine: str,
    *,
    role: str = "mixed",
    profiled: bool = False,
) -> Child:
    """Start one node."""
    placement = settings.placement
    env = {
        "INFERQ_SCHEDULER_NAME": settings.scheduler_name,
        "INFERQ_ROLE": role,
        "INFERQ_PLACEMENT__PREFILL_POLICY": placement.prefill_policy,
        "INFERQ_PLACEMENT__DECODE_POLICY": placement.decode_policy,
        "INFERQ_SCHEDULER_URL": settings.scheduler_url,
        "INFERQ_SCHEDULER_MIN_LOAD_SCORE": str(settings.scheduler_min_load_score),
        "INFERQ_ENGINE": engine,
    }
    return stage.start_node(name, env, module=PROFILED if profiled else CELERY)


@contextmanager
def stock_workers(
    count: int, pool: str = "solo", *, queues: Sequence[str] = ()
) -> Iterator[tuple[str, Meter]]:
    """Stock Celery's workers; the URL of their Redis, and a meter. ``queues``: of each worker."""
    with Stage() as stage:
        url = stage.start_server()
        options = ("-P", pool, "-c", "2", "--without-gossip", "--without-mingle")
        command = (sys.executable, "-m", "celery", "-A", "benchmarks.cluster_stock", "worker")
        for number in range(count):
            queue = ("-Q", queues[number]) if queues else ()
            stage.nodes.append(
                Child(
                    f"stock{number}",
                    [*command, "-n", f"stock{number}@benchmark", *options, *queue],
                    folder=stage.folder,
                    env={**os.environ, URL_VARIABLE: url},
                )
            )
        meter = Meter(url, [node.pid for node in stage.nodes], scripted=False)
        yield url, meter
        meter.close()


@contextmanager
def raw_servers(count: int) -> Iterator[tuple[redis.Redis, Meter]]:
    """Processes that answer over two lists; a client, and a meter."""
    with Stage() as stage:
        url = stage.start_server()
        command = (sys.executable, "-m", "benchmarks.cluster_stock", "raw", url)
        for number in range(count):
            stage.nodes.append(Child(f"raw{number}", command, folder=stage.folder))
        meter = Meter(url, [node.pid for node in stage.nodes], scripted=False)
        with connect(url) as client:
            yield client, meter
        meter.close()
