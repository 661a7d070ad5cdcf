"""Global mode on one machine: a Redis, node processes, a producer; each with what it is held to.

    python -m benchmarks.cluster [--runs 5] [--requests 4000] [--only NAME] [--profile]

Each line is a JSON object; values are medians of the runs, and so are those of the baselines,
which run in turn with ours. ``met`` compares with ``target``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import cluster_stage as stage
from benchmarks.cluster_costs import Costs, Meter
from benchmarks.cluster_engines import SLOTS, STEP_S
from benchmarks.cluster_profile import FOLDER_VARIABLE, profiled
from benchmarks.cluster_report import Targets, figures_of, report, report_throughput
from benchmarks.cluster_stock import raw_round_trip, run_raw, run_stock
from benchmarks.measure import emit, quantile
from inferq import Client

PROMPT = list(range(1, 101))
BATCH = 100
OUTPUTS = 128
#: Tokens, hence steps, of a request of the stepping engine.
STEPS = 8
LONG_S = 120.0
TARGETS = Targets(4, 0.4, 3)


def submit_all(client: Client, batch: int, requests: int, **fields: Any) -> None:
    """Submit so many, ``batch`` at once, then wait for all."""
    fields = {"prompt_token_ids": PROMPT, "max_tokens": 1, **fields}
    handles = []
    for first in range(0, requests, batch):
        handles += client.submit_many([fields] * min(batch, requests - first))
    for handle in handles:
        handle.result(LONG_S)


def measure(meter: Meter, work: Callable[[], object]) -> Costs:
    """What the work costs."""
    with meter.measured() as costs:
        work()
    return costs


class Contender(NamedTuple):
    """Something that serves ``requests``, as ``work`` makes it do."""

    meter: Meter
    requests: int
    work: Callable[[int], None]

    def run(self) -> Costs:
        """What serving all of them costs."""
        return measure(self.meter, lambda: self.work(self.requests))


def throughput(runs: int, requests: int) -> None:
    """Requests per second and what they cost, beside stock Celery and bare redis-py."""
    payload = str(PROMPT)
    with ExitStack() as stack:
        setup = stack.enter_context(stage.nodes(["noop", "noop"]))
        url, stock = stack.enter_context(stage.stock_workers(2))
        client, raw = stack.enter_context(stage.raw_servers(2))
        contenders = {
            "batches": Contender(setup.meter, requests, partial(submit_all, setup.client, BATCH)),
            "single": Contender(setup.meter, requests, partial(submit_all, setup.client, 1)),
            "stock": Contender(stock, max(200, requests // 4), partial(run_stock, url, PROMPT)),
            "raw": Contender(raw, requests, partial(run_raw, client, payload)),
        }
        for contender in contenders.values():
            contender.work(200)
        costs: dict[str, list[tuple[int, Costs]]] = {name: [] for name in contenders}
        for _ in range(runs):
            for name, contender in contenders.items():
                costs[name].append((contender.requests, contender.run()))
    figures = {name: figures_of(rows) for name, rows in costs.items()}
    for name in ("single", "batches"):
        report_throughput(f"throughput_{name}", figures[name], figures["stock"], TARGETS)
    emit("throughput_stock", **figures["stock"])
    emit("throughput_raw", **figures["raw"])


def first_output_ms(client: Client) -> float:
    """Submit to first output."""
    started = time.perf_counter()
    with client.stream(prompt_token_ids=PROMPT, max_tokens=1) as stream:
        next(stream)
        taken_s = time.perf_counter() - started
        for _ in stream:
            pass
    return taken_s * 1000


def sample(work: Callable[[], float], count: int) -> list[float]:
    """So many samples, in turn."""
    return [work() for _ in range(count)]


def idle(runs: int, requests: int) -> None:
    """One request at a time, which any node can serve."""
    count = max(100, requests // 10)
    with stage.nodes(["noop", "noop"]) as setup, stage.raw_servers(1) as (raw, _):
        sample(lambda: first_output_ms(setup.client), 100)
        quiet = measure(setup.meter, lambda: time.sleep(3))
        times, costs, raw_times = [], [], []
        for _ in range(runs):
            costs.append(
                measure(
                    setup.meter,
                    lambda: times.append(sample(lambda: first_output_ms(setup.client), count)),
                )
            )
            raw_times.append(
                median(_timed_ms(lambda: raw_round_trip(raw, "x")) for _ in range(count))
            )
        _report_latency("idle", times, at_most=2, baseline=median(raw_times))
        beats = quiet.sent / quiet.wall_s
        sent = median((cost.sent - beats * cost.wall_s) / count for cost in costs)
        report("idle_commands", sent, "commands a request", at_most=8, beats_per_s=beats)


def _timed_ms(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _report_latency(
    name: str, times: list[list[float]], *, at_most: float, baseline: float | None = None
) -> None:
    p50, p99 = (median(quantile(run, share) for run in times) for share in (0.5, 0.99))
    report(name, p50, "ms to first output", at_most=at_most, baseline=baseline, p99=p99)


def thief(runs: int, requests: int) -> None:
    """One request at a time, sent to a node that is full: only another one can serve it."""
    count = max(100, requests // 10)
    with stage.nodes(["benchmarks.cluster_engines:Stuck"], scheduler_min_load_score=0) as setup:
        setup.client.submit(prompt_token_ids=PROMPT, max_tokens=1)
        while setup.client.counts().running == 0:
            time.sleep(0.01)
        setup.add("noop")
        with setup.client_of(setup.names[0]) as client:
            sample(lambda: first_output_ms(client), 50)
            times = [sample(lambda: first_output_ms(client), count) for _ in range(runs)]
    _report_latency("thief", times, at_most=5)


def scale(runs: int, requests: int) -> None:
    """Requests per second of 1, 2 and 4 nodes whose engines take 10 ms a step."""
    rates: dict[int, float] = {}
    for count in (1, 2, 4):
        with stage.nodes(["benchmarks.cluster_engines:Stepping"] * count) as setup:
            number = max(100, requests // 16) * count

            def run(setup: stage.Setup = setup, number: int = number) -> None:
                submit_all(setup.client, BATCH, number, max_tokens=STEPS)

            run()
            rates[count] = median(number / measure(setup.meter, run).wall_s for _ in range(runs))
    most = SLOTS / (STEPS * STEP_S)
    report("scale_1", rates[1], "requests/s", at_least=0.8 * most, engine_could=most)
    for count, target in ((2, 1.9), (4, 3.6)):
        factor = rates[count] / rates[1]
        report(f"scale_{count}", factor, "times one node", at_least=target, per_s=rates[count])


def outputs(runs: int, requests: int) -> None:
    """Outputs per second from one node to one producer."""
    count = max(20, requests // 10)
    with stage.nodes(["noop"]) as setup:

        def run() -> None:
            submit_all(setup.client, BATCH, count, max_tokens=OUTPUTS)

        run()
        costs = [measure(setup.meter, run) for _ in range(runs)]
    rate = median(count * OUTPUTS / cost.wall_s for cost in costs)
    cpu = {
        "producer_us": median(cost.producer_s for cost in costs),
        "node_us": median(cost.nodes_s for cost in costs),
        "redis_us": median(cost.redis_s for cost in costs),
    }
    per_output = {name: s / count / OUTPUTS * 1e6 for name, s in cpu.items()}
    report("outputs", rate, "outputs/s", at_least=100_000, **per_output)


BENCHMARKS = {
    "throughput": throughput,
    "idle": idle,
    "thief": thief,
    "scale": scale,
    "outputs": outputs,
}


def profile(name: str, requests: int) -> None:
    """Where the CPU goes in the producer and in a node."""
    fields = {"max_tokens": OUTPUTS} if name == "outputs" else {}
    batch = 1 if name == "idle" else BATCH

    def work() -> None:
        with stage.nodes(["noop"], profiled=True) as setup:
            submit_all(setup.client, batch, requests, **fields)

    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER_VARIABLE] = folder
        profiled(work, "producer")
        for path in sorted(Path(folder).iterdir()):
            print(path.read_text())


def main() -> None:
    """Run all, or the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--only", choices=BENCHMARKS)
    parser.add_argument("--profile", action="store_true", help="print where the CPU goes")
    options = parser.parse_args()
    if options.profile:
        profile(options.only or "throughput", options.requests)
        return
    emit("machine", cores=os.cpu_count(), load_of_others=os.getloadavg()[0])
    for name, benchmark in BENCHMARKS.items():
        if options.only in (None, name):
            benchmark(options.runs, options.requests)


if __name__ == "__main__":
    main()
