"""Splitwise mode on one machine: two prefill and two decode nodes, each with what it is held to.

    python -m benchmarks.splitwise [--runs 5] [--requests 4000] [--only NAME]

Each line is a JSON object; values are medians of the runs, and so are those of the baseline, a
pipeline of two tasks of stock Celery, of which the first sends the second. It runs in turn with
ours. ``met`` compares with ``target``. Each request is prefilled at one node, decoded at another.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from statistics import median

from benchmarks import cluster_stage as stage
from benchmarks.cluster import BATCH, PROMPT, Contender, measure, submit_all
from benchmarks.cluster_costs import Costs
from benchmarks.cluster_report import Targets, figures_of, report, report_throughput
from benchmarks.cluster_stock import QUEUE, SECOND_QUEUE, run_stock
from benchmarks.measure import emit, quantile
from inferq import Client

ROLES = ("prefill", "prefill", "decode", "decode")
ENGINES = ("noop",) * len(ROLES)
#: Tokens of an answer: one from each phase.
TOKENS = 2
TARGETS = Targets(3, 0.9, 8)
POLICIES = ("pull", "least_time", "blur", "round_robin")


def throughput(runs: int, requests: int) -> None:
    """Requests per second and what they cost, by policy of the prefill, beside stock Celery."""
    stock_requests = max(200, requests // 4)
    with stage.stock_workers(4, queues=(QUEUE, QUEUE, SECOND_QUEUE, SECOND_QUEUE)) as (url, meter):
        stock = Contender(meter, stock_requests, partial(run_stock, url, PROMPT, task="first"))
        stock.work(200)
        stock_rows: list[tuple[int, Costs]] = []
        for policy in POLICIES:
            placement = {"prefill_policy": policy}
            with stage.nodes(
                ENGINES, roles=ROLES, scheduler_name="splitwise", placement=placement
            ) as setup:
                work = partial(submit_all, setup.client, BATCH, max_tokens=TOKENS)
                ours = Contender(setup.meter, requests, work)
                ours.work(200)
                rows = []
                for _ in range(runs):
                    rows.append((requests, ours.run()))
                    if policy == POLICIES[0]:
                        stock_rows.append((stock_requests, stock.run()))
            ours_costs, stock_costs = figures_of(rows), figures_of(stock_rows)
            report_throughput(f"throughput_{policy}", ours_costs, stock_costs, TARGETS)
    emit("throughput_stock", **figures_of(stock_rows))


def two_outputs_ms(client: Client) -> tuple[float, float]:
    """Submit to the first output, and to the second, which another node sends."""
    started = time.perf_counter()
    with client.stream(prompt_token_ids=PROMPT, max_tokens=TOKENS) as stream:
        next(stream)
        first_s = time.perf_counter() - started
        next(stream)
        second_s = time.perf_counter() - started
        for _ in stream:
            pass
    return first_s * 1000, second_s * 1000


def idle(runs: int, requests: int) -> None:
    """One request at a time."""
    count = max(100, requests // 10)
    with stage.nodes(ENGINES, roles=ROLES, scheduler_name="splitwise") as setup:
        ask = partial(two_outputs_ms, setup.client)
        sample_pairs(ask, 100)
        quiet = measure(setup.meter, lambda: time.sleep(3))
        beats = quiet.sent / quiet.wall_s
        times: list[list[tuple[float, float]]] = []
        costs = [
            measure(setup.meter, lambda: times.append(sample_pairs(ask, count)))
            for _ in range(runs)
        ]
    for at, (name, target) in enumerate((("first", 3), ("second", 8))):
        p50, p99 = (
            median(quantile([pair[at] for pair in run], share) for run in times)
            for share in (0.5, 0.99)
        )
        report(f"idle_{name}", p50, f"ms to {name} output", at_most=target, p99=p99)
    sent = median((cost.sent - beats * cost.wall_s) / count for cost in costs)
    report("idle_commands", sent, "commands a request", beats_per_s=beats)


def sample_pairs(work: partial[tuple[float, float]], count: int) -> list[tuple[float, float]]:
    """So many samples, in turn."""
    return [work() for _ in range(count)]


BENCHMARKS = {"throughput": throughput, "idle": idle}


def main() -> None:
    """Run both, or the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--only", choices=BENCHMARKS)
    options = parser.parse_args()
    emit("machine", cores=os.cpu_count(), load_of_others=os.getloadavg()[0])
    for name, benchmark in BENCHMARKS.items():
        if options.only in (None, name):
            benchmark(options.runs, options.requests)


if __name__ == "__main__":
    main()
