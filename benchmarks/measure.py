"""What the benchmarks share: medians, CPU time, and one JSON line a result."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Cost:
    """Wall and CPU seconds of a block of code, of this process with all its threads."""

    wall_s = 0.0
    cpu_s = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the block."""
    cost = Cost()
    wall, cpu = time.perf_counter(), _cpu_s()
    yield cost
    cost.wall_s, cost.cpu_s = time.perf_counter() - wall, _cpu_s() - cpu


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def median_of(runs: int, measure: Callable[[], float]) -> float:
    """The median of several runs."""
    return statistics.median(measure() for _ in range(runs))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def resident_bytes() -> int:
    """Memory of this process in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def emit(name: str, **figures: Any) -> None:
    """Print a result as one JSON line."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in figures.items()}
    sys.stdout.write(json.dumps({"benchmark": name, **rounded}) + "\n")
    sys.stdout.flush()
