"""The local scheduler with an engine that costs nothing, beside stock Celery.

    python -m benchmarks.local [--runs 5] [--requests 4000] [--profile]

Each line is a JSON object; times are medians of the runs.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import threading
import time
from collections.abc import Callable

from benchmarks import stock
from benchmarks.measure import emit, measured, median_of, quantile, resident_bytes
from inferq import Client, Settings

PROMPT = list(range(1, 101))
OUTPUTS = 128


def requests_per_s(client: Client, requests: int) -> float:
    """Submit all, then wait for all."""
    with measured() as cost:
        handles = [client.submit(prompt_token_ids=PROMPT, max_tokens=1) for _ in range(requests)]
        for handle in handles:
            handle.result(60)
    return requests / cost.wall_s


def outputs_per_s(client: Client, requests: int) -> float:
    """The same with 128 outputs each."""
    with measured() as cost:
        handles = [client.submit(prompt="x", max_tokens=OUTPUTS) for _ in range(requests)]
        for handle in handles:
            handle.result(60)
    return requests * OUTPUTS / cost.wall_s


def first_output_ms(client: Client, requests: int) -> list[float]:
    """Submit to first output, one request at a time."""
    times = []
    for _ in range(requests):
        started = time.perf_counter()
        stream = client.stream(prompt_token_ids=PROMPT, max_tokens=1)
        next(stream)
        times.append((time.perf_counter() - started) * 1000)
        for _ in stream:
            pass
    return times


def compare_throughput(runs: int, requests: int, stock_requests: int, *, tuned: bool) -> None:
    """Requests per second and CPU per request, ours and stock Celery's, run by run."""
    ratios, ours, theirs, our_cpu, their_cpu = [], [], [], [], []
    with Client(Settings(engine="noop")) as client, stock.running(tuned=tuned) as baseline:
        requests_per_s(client, 500)
        for _ in range(runs):
            with measured() as cost:
                ours.append(requests_per_s(client, requests))
            our_cpu.append(cost.cpu_s / requests * 1e6)
            with measured() as cost:
                baseline.run(stock_requests, PROMPT)
            theirs.append(stock_requests / cost.wall_s)
            their_cpu.append(cost.cpu_s / stock_requests * 1e6)
            ratios.append(ours[-1] / theirs[-1])
    emit(
        "requests",
        stock="tuned" if tuned else "as shipped",
        inferq_per_s=quantile(ours, 0.5),
        stock_per_s=quantile(theirs, 0.5),
        ratio=quantile(ratios, 0.5),
        inferq_cpu_us=quantile(our_cpu, 0.5),
        stock_cpu_us=quantile(their_cpu, 0.5),
    )


def lifecycle(runs: int) -> None:
    """How long a client takes to start and to stop, with requests still running."""
    starts, stops = [], []
    for _ in range(runs):
        client = Client(Settings(engine="simulated"))
        with measured() as start:
            client.__enter__()
        for _ in range(50):
            client.submit(prompt="x", max_tokens=1000)
        with measured() as stop:
            client.close()
        starts.append(start.wall_s * 1000)
        stops.append(stop.wall_s * 1000)
    emit("lifecycle", start_ms=quantile(starts, 0.5), stop_ms=quantile(stops, 0.5))


def latency_and_outputs(runs: int) -> None:
    """Idle latency, and streamed outputs per second."""
    with Client(Settings(engine="noop")) as client:
        first_output_ms(client, 200)
        samples = [first_output_ms(client, 1000) for _ in range(runs)]
        emit(
            "first_output",
            p50_ms=quantile([quantile(s, 0.5) for s in samples], 0.5),
            p99_ms=quantile([quantile(s, 0.99) for s in samples], 0.5),
        )
        rate = median_of(runs, lambda: outputs_per_s(client, 500))
        emit("outputs", outputs_per_s=rate, outputs_a_request=OUTPUTS)


def memory(waiting: int) -> None:
    """Memory of waiting requests with 1,000 prompt tokens each, behind an engine that is busy."""
    settings = Settings(
        engine="simulated", simulated={"total_blocks": 32, "max_slots": 1, "speedup": 0.001}
    )
    prompt = [token * 31 % 49_152 for token in range(1000)]
    with Client(settings) as client:
        handles = [client.submit(prompt_token_ids=prompt, max_tokens=16)]
        before = resident_bytes()
        with measured() as cost:
            handles += [
                client.submit(prompt_token_ids=prompt, max_tokens=16) for _ in range(waiting)
            ]
        emit(
            "memory",
            waiting=client.counts().waiting,
            bytes_a_request=(resident_bytes() - before) / waiting,
            submit_per_s=waiting / cost.wall_s,
        )
        with measured() as cost:
            client.reset()
        emit("reset", requests=waiting, wall_s=cost.wall_s)


def profile(requests: int, lines: int = 25) -> None:
    """Where the CPU goes: the costliest functions of each thread, by own time."""
    profiles: dict[str, cProfile.Profile] = {}

    def wrap(target: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            mine = profiles[threading.current_thread().name] = cProfile.Profile()
            mine.runcall(target)

        return run

    plain_run = threading.Thread.run
    threading.Thread.run = lambda self: wrap(lambda: plain_run(self))()  # type: ignore[method-assign]
    own = cProfile.Profile()
    with Client(Settings(engine="noop")) as client:
        own.runcall(requests_per_s, client, requests)
    threading.Thread.run = plain_run  # type: ignore[method-assign]
    for name, data in {"producer": own, **profiles}.items():
        text = io.StringIO()
        stats = pstats.Stats(data, stream=text).strip_dirs()
        stats.sort_stats("tottime").print_stats(lines)
        print(f"== thread {name}\n{text.getvalue()}")


def main() -> None:
    """Run all, or only the profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--profile", action="store_true", help="print where the CPU goes")
    options = parser.parse_args()
    if options.profile:
        profile(options.requests)
        return
    lifecycle(options.runs)
    latency_and_outputs(options.runs)
    compare_throughput(options.runs, options.requests, options.requests // 4, tuned=True)
    compare_throughput(options.runs, options.requests, 50, tuned=False)
    memory(options.waiting)


if __name__ == "__main__":
    main()
