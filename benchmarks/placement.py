"""What placement costs, and what it is worth.

    python -m benchmarks.placement [--requests 2000] [--trace FILE] [--seed 1] [--only cpu|worth]

CPU: microseconds for each request, its share of a snapshot included. Worth: a simulation of nodes
and producers (benchmarks/placement_simulation.py); for prefill seconds to the first token, for
decode seconds a token, waiting included. ``scripted``: the final choice sees fresh loads, as in
splitwise mode; without, each producer decides by its last snapshot and what it has itself sent.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from random import Random

from benchmarks.measure import emit, measured, quantile
from benchmarks.placement_simulation import (
    FAST,
    KV_TOKENS,
    SLOW,
    USUAL_PROMPT,
    Job,
    Setup,
    Simulation,
    jobs_of,
)
from inferq.demo.traces import read_trace
from inferq.demo.workload import Arrival, synthetic_load
from inferq.routing.placement import (
    PROFILES,
    Ask,
    NodeInfo,
    Phase,
    Placer,
    Policy,
    Scored,
    Snapshot,
    Weighted,
    create_policy,
)
from inferq.settings import PlacementSettings
from inferq.settings.placement import POLICIES

PHASES: tuple[Phase, ...] = ("prefill", "decode")
REFRESHES = 10
#: Requests between two refreshes: 1,000 a second, 5 refreshes a second.
PER_REFRESH = 200
#: Share of what the nodes can do at most that the trace asks for.
PREFILL_USE, DECODE_USE = 0.75, 0.6
#: Coefficient of variation of the gaps between arrivals.
BURSTS = 3.0
MOST_NODES = 64


def records(count: int, random: Random) -> list[tuple[object, ...]]:
    """Nodes as a pipeline's reply would list them."""
    return [
        (
            f"node-{i}", "mixed", True, 1e12, f"host-{i // 8}", random.choice((8192, 32_768)),
            random.randrange(20_000), random.randrange(30), random.randrange(60_000),
            4096, random.randrange(4096), 32, random.uniform(5e3, 9e3), random.uniform(500, 900),
        )
        for i in range(count)
    ]  # fmt: skip


def policies(phase: Phase, random: Random) -> dict[str, Policy]:
    """Every built-in policy, and one that is put together from two scorers."""
    made = {
        name: create_policy(
            PlacementSettings(prefill_policy=name, decode_policy=name), phase, random
        )
        for name in POLICIES
    }
    scorers = (
        Weighted(lambda node, ask: float(node.host == ask.host), 1.0),
        Weighted(lambda node, _: node.free_blocks / node.total_blocks, 2.0),
    )
    own = Scored(PROFILES[phase], random, scorers=scorers, tokens_per_point=20_000)
    return {**made, "scored (two scorers)": own}


def cpu_us(policy: Policy, rows: Sequence[tuple[object, ...]], random: Random) -> float:
    """CPU of a placement, with its share of building the snapshot, microseconds."""
    placer = Placer(policy)
    asks = [
        Ask(random.randrange(1, 8000), 128, f"host-{random.randrange(100)}")
        for _ in range(PER_REFRESH)
    ]
    with measured() as cost:
        for _ in range(REFRESHES):
            placer.reading()
            placer.refresh(Snapshot(tuple(map(NodeInfo._make, rows)), 1.0))
            for ask in asks:
                shortlist = placer.place(ask)
                if shortlist.candidates:
                    placer.placed(shortlist.candidates[0].name, 1000)
    return cost.cpu_s / (REFRESHES * PER_REFRESH) * 1e6


def measure_cpu(seed: int) -> None:
    """All policies with few and with many nodes."""
    for nodes in (8, 100, 1000):
        rows = records(nodes, Random(seed))
        for phase in PHASES:
            for name, policy in policies(phase, Random(seed)).items():
                runs = [cpu_us(policy, rows, Random(seed)) for _ in range(3)]
                emit(
                    "placement_cpu", phase=phase, policy=name, nodes=nodes,
                    cpu_us=statistics.median(runs),
                )  # fmt: skip


def paced(setup: Setup, arrivals: Sequence[Arrival]) -> list[Job]:
    """The trace, at the pace that uses the nodes of this run as much as is wanted."""
    span_s = arrivals[-1].at_s or 1.0
    jobs = jobs_of(arrivals, 1.0, setup.seed)
    if setup.phase == "prefill":
        rates = (USUAL_PROMPT / cost.prefill_ms(USUAL_PROMPT) * 1000 for cost in (FAST, SLOW))
        fast, slow = rates
        work_s = sum(job.ask.prompt_tokens for job in jobs) / (
            fast * setup.fast + slow * setup.slow
        )
        return jobs_of(arrivals, PREFILL_USE * span_s / work_s, setup.seed)
    rows = KV_TOKENS * DECODE_USE / statistics.mean(job.ask.total_tokens for job in jobs)
    kv = rows * statistics.mean(job.ask.prompt_tokens + job.answer / 2 for job in jobs)
    costs = [FAST] * setup.fast + [SLOW] * setup.slow
    tokens_per_s = sum(rows / cost.decode_ms(int(rows), int(kv)) * 1000 for cost in costs)
    work_s = sum(job.answer for job in jobs) / tokens_per_s
    return jobs_of(arrivals, span_s / work_s, setup.seed)


def setups(seed: int) -> list[Setup]:
    """All runs."""
    scenes = [
        {"fast": 8},
        {"fast": 4, "slow": 4},
        {"fast": MOST_NODES},
        {"fast": MOST_NODES, "period_s": 1.0},
    ]
    return [
        Setup(phase, policy, scripted=scripted, seed=seed, **scene)  # type: ignore[arg-type]
        for phase in PHASES
        for scene in scenes
        for policy in POLICIES
        for scripted in (True, False)
        if scripted or policy in {"blur", "least_time"}
    ]


def measure_worth(arrivals: Sequence[Arrival], seed: int, trace: str) -> None:
    """All policies on the same requests."""
    for setup in setups(seed):
        part = arrivals[: len(arrivals) * (setup.fast + setup.slow) // MOST_NODES]
        outcome = Simulation(setup, paced(setup, part)).run()
        figures = outcome.figures
        emit(
            "placement_worth", trace=trace, **setup._asdict(),
            p50_s=quantile(figures, 0.5), p99_s=quantile(figures, 0.99),
            mean_s=statistics.fmean(figures), imbalance=outcome.imbalance,
        )  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="for each 8 nodes")
    parser.add_argument("--trace", help="a trace of Azure or Mooncake instead of a synthetic one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("cpu", "worth"))
    options = parser.parse_args()
    if options.only != "worth":
        measure_cpu(options.seed)
    if options.only == "cpu":
        return
    count = options.requests * MOST_NODES // 8
    if options.trace:
        arrivals = read_trace(options.trace, count)
    else:
        arrivals = synthetic_load(
            count, rate=1, cv=BURSTS, prompt_tokens=1000, max_tokens=600,
            seed=options.seed,
        )  # fmt: skip
    measure_worth(arrivals, options.seed, options.trace or "synthetic")


if __name__ == "__main__":
    main()
