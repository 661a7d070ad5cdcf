"""Values beside what they are held to, and beside those of stock Celery."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from benchmarks.cluster_costs import Costs
from benchmarks.measure import emit


def report(
    name: str,
    value: float,
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    baseline: float | None = None,
    **more: Any,
) -> None:
    """Print a value beside its target and the baseline's."""
    figures: dict[str, Any] = {"value": value, "unit": unit}
    target = at_least if at_most is None else at_most
    if target is not None:
        met = value >= target if at_most is None else value <= target
        figures |= {"target": float(target), "met": met}
    if baseline is not None:
        figures |= {"baseline": baseline, "ratio": value / baseline}
    emit(name, **figures, **more)


class Targets(NamedTuple):
    """``times`` the requests per second of stock Celery; CPU and commands of a request."""

    times: float
    cpu_ms: float
    commands: float


def figures_of(rows: list[tuple[int, Costs]]) -> dict[str, float]:
    """Medians of what a request costs."""

    def of(figure: Callable[[Costs], float]) -> float:
        return median(figure(costs) / count for count, costs in rows)

    return {
        "per_s": 1 / of(lambda c: c.wall_s),
        "cpu_ms": 1000 * of(lambda c: c.cpu_s),
        "producer_ms": 1000 * of(lambda c: c.producer_s),
        "nodes_ms": 1000 * of(lambda c: c.nodes_s),
        "redis_ms": 1000 * of(lambda c: c.redis_s),
        "sent": of(lambda c: c.sent),
        "total": of(lambda c: c.total),
    }


def report_throughput(
    name: str, ours: dict[str, float], stock: dict[str, float], targets: Targets
) -> None:
    """Requests per second, and what each costs, beside stock Celery's."""
    per_s, stock_per_s = ours["per_s"], stock["per_s"]
    report(name, per_s, "requests/s", at_least=targets.times * stock_per_s, baseline=stock_per_s)
    parts = {part: ours[part] for part in ("producer_ms", "nodes_ms", "redis_ms")}
    report(
        f"{name}_cpu",
        ours["cpu_ms"],
        "ms",
        at_most=targets.cpu_ms,
        baseline=stock["cpu_ms"],
        **parts,
    )
    report(
        f"{name}_commands",
        ours["sent"],
        "commands a request",
        at_most=targets.commands,
        baseline=stock["sent"],
        with_scripts=ours["total"],
    )
