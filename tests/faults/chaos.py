"""Kills nodes at random moments under a constant load, and counts what became of the requests.

Run it with ``scripts/chaos``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

from inferq import Client, Output, RequestEnded
from inferq.client import Handle
from tests.cluster_harness import PREFIX, Cluster
from tests.faults.answers import check_outputs, requests
from tests.faults.processes import Process

#: An answer takes half a second, in pieces: most kills hit requests in the middle of theirs.
TOKENS, PACE_MS = 25, 20
SLOTS = 64
#: The phases of a request take about the same time each, so that kills hit all of them.
SHAPE = {"prefill_ms": 200, "export_ms": 100, "kv_kib": 256}
PHASES = {"prefill": {"prefill"}, "decode": {"decode"}, "mixed": {"prefill", "decode"}}
MODES: dict[str, dict[str, Any]] = {
    "global": {"scheduler_name": "global"},
    "splitwise": {"scheduler_name": "splitwise"},
    "concurrent": {"scheduler_name": "splitwise", "family": "concurrent"},
}
#: A request that has not ended so long after the last kill is lost, seconds.
PATIENCE_S = 60.0


class Options(NamedTuple):
    """What the command line says. ``rate``: requests a second. ``lease``: seconds."""

    kills: int
    nodes: int
    seed: int
    rate: float
    lease: float
    kills_per_s: float
    mode: str = "global"

    @property
    def roles(self) -> list[str]:
        """Of the nodes."""
        roles = ("mixed",) if self.mode == "global" else ("prefill", "decode", "mixed")
        return list(islice(cycle(roles), self.nodes))


class Tally:
    """What became of the requests.

    ``doubled``: seen twice by their caller, or ended twice in what the nodes wrote.
    """

    def __init__(self) -> None:
        self.sent = self.finished = self.failed = self.lost = self.doubled = 0
        self._ends: Counter[str] = Counter()

    def watch(self, client: Client) -> None:
        """Count the ends that arrive, before anything sorts out those that come twice."""
        ledger = client._session.scheduler._ledger  # type: ignore[attr-defined]
        deliver = ledger.deliver

        def counting(output: Output) -> bool:
            self._ends[output.request_id] += output.finished
            return bool(deliver(output))

        ledger.deliver = counting

    def settle(self, handle: Handle) -> None:
        """Wait for a request's end and see what its caller sees."""
        try:
            handle.result(PATIENCE_S)
            check_outputs(handle.stream(), TOKENS)
            self.finished += 1
        except TimeoutError:
            self.lost += 1
        except RequestEnded as exc:
            self.failed += 1
            print(exc, file=sys.stderr)
        except AssertionError as exc:
            self.doubled += 1
            print(exc, file=sys.stderr)
        if self._ends[handle.request_id] > 1:
            self.doubled += 1
            print(f"{handle.request_id} ended twice", file=sys.stderr)


class Recoveries:
    """Measures how long it takes from a kill until nothing is claimed by the dead node."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._killed_at: dict[str, float] = {}
        self._stop = threading.Event()
        self.seconds: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def kill(self, node: Process) -> None:
        """Kill a node."""
        claims = f"{PREFIX}claims:{self._cluster.incarnation(node)}"
        node.kill()
        self._killed_at[claims] = time.monotonic()

    def finish(self) -> None:
        """Wait until every dead node's claims are gone."""
        self._cluster.wait(lambda: not self._killed_at)
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for claims, killed_at in list(self._killed_at.items()):
                if not self._cluster.redis.exists(claims):
                    self.seconds.append(time.monotonic() - killed_at)
                    del self._killed_at[claims]


class Load:
    """Submits at a constant rate, from a thread of its own."""

    def __init__(self, client: Client, options: Options) -> None:
        self.handles: list[Handle] = []
        self._client = client
        self._pause_s = 1 / options.rate
        self._shape = {} if options.mode == "global" else SHAPE
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Submit no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due_at = time.monotonic()
        while not self._stop.wait(max(0.0, due_at - time.monotonic())):
            due_at += self._pause_s
            name = f"r{len(self.handles)}"
            fields = requests(name, 1, tokens=TOKENS, pace_ms=PACE_MS, **self._shape)
            self.handles += self._client.submit_many(fields)


class Killer:
    """Kills nodes that serve, at random moments, and starts new ones in their place."""

    def __init__(self, cluster: Cluster, options: Options, recoveries: Recoveries) -> None:
        self._cluster = cluster
        self._options = options
        self._recoveries = recoveries
        self._random = random.Random(options.seed)
        self._names = (f"node{n}" for n in range(sys.maxsize))
        self._roles: dict[Process, str] = {}
        self.nodes: list[Process] = []

    def start(self) -> None:
        """Start the first nodes."""
        self.nodes = [self._spawn(role) for role in self._options.roles]
        self._cluster.ready(*self.nodes)

    def run(self) -> None:
        """Kill as many as asked for."""
        for number in range(1, self._options.kills + 1):
            time.sleep(self._random.uniform(0.0, 2.0 / self._options.kills_per_s))
            # With nobody left, recovery would wait for the next node to start.
            self._cluster.wait(lambda: bool(self._expendable()))
            victim = self._random.choice(self._expendable())
            self._recoveries.kill(victim)
            self.nodes[self.nodes.index(victim)] = self._spawn(self._roles[victim])
            if number % 10 == 0:
                print(f"{number} kills", file=sys.stderr)

    def check(self) -> None:
        """The nodes that were not killed must be alive, and nothing may be left at them."""
        self._cluster.ready(*self.nodes)
        if self._options.mode != "global":
            self._cluster.check_clean(*self.nodes)

    def _spawn(self, role: str) -> Process:
        node = self._cluster.node(next(self._names), slots=SLOTS, role=role)
        self._roles[node] = role
        return node

    def _expendable(self) -> Sequence[Process]:
        """Nodes that serve, without which each phase is served all the same."""
        serving = [node for node in self.nodes if self._cluster.is_ready(node)]
        everything = self._phases(self.nodes)
        return [node for node in serving if self._phases(set(serving) - {node}) == everything]

    def _phases(self, nodes: Iterable[Process]) -> set[str]:
        return set().union(*(PHASES[self._roles[node]] for node in nodes))


def run(options: Options, folder: Path) -> tuple[Tally, list[float]]:
    """One run; how the requests ended and how long recoveries took."""
    tally = Tally()
    limits = {"max_attempts": 1000}
    mode = MODES[options.mode]
    with Cluster(folder, lease_s=options.lease, cluster=limits, **mode) as cluster:
        recoveries = Recoveries(cluster)
        killer = Killer(cluster, options, recoveries)
        killer.start()
        with cluster.client() as client:
            tally.watch(client)
            load = Load(client, options)
            killer.run()
            load.stop()
            tally.sent = len(load.handles)
            for handle in load.handles:
                tally.settle(handle)
        recoveries.finish()
        killer.check()
    return tally, recoveries.seconds


def read_options(arguments: Sequence[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="nodes to kill")
    parser.add_argument("--mode", choices=MODES, default="global", help="what is put to the test")
    parser.add_argument("--nodes", type=int, help="nodes at a time")
    parser.add_argument("--seed", type=int, default=random.randrange(1000), help="of the moments")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--lease", type=float, default=1.0, help="cluster.lease_ttl_s")
    parser.add_argument("--kills-per-s", type=float, default=1.5, help="kills a second, about")
    options = Options(**vars(parser.parse_args(arguments)))
    return options._replace(nodes=options.nodes or (3 if options.mode == "global" else 5))


def main() -> int:
    """Run, report, and say whether all went well."""
    options = read_options()
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="inferq-chaos-") as folder:
        tally, recoveries = run(options, Path(folder))
    for name in ("sent", "finished", "failed", "lost", "doubled"):
        print(f"{name}: {getattr(tally, name)}")
    print(f"slowest recovery: {max(recoveries, default=0.0):.2f} s")
    print(f"kills: {options.kills} in {time.monotonic() - started_at:.0f} s, seed {options.seed}")
    return int(tally.lost + tally.doubled > 0)


if __name__ == "__main__":
    sys.exit(main())
