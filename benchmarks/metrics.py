"""What counting costs a request, and a scrape the node: ``python -m benchmarks.metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.measure import emit, measured, median_of
from inferq.cluster.rows import Taken
from inferq.messages import Output, Request, Timings
from inferq.monitoring.metrics.node import NodeCollector
from inferq.monitoring.metrics.parts import Parts
from inferq.settings import Settings
from inferq.tasks.call import Call
from inferq.worker.node import Node
from inferq.worker.stats import Stats

RUNS = 5
REQUESTS = 50_000
SCRAPES = 50


def main() -> None:
    """Measure and print."""
    emit("metrics.count", us_a_request=median_of(RUNS, count))
    emit("metrics.scrape", ms=median_of(RUNS, scrape))


def count() -> float:
    """CPU of all that is counted of one request, microseconds."""
    stats = Stats()
    request = Request.parse({"request_id": "r", "prompt_token_ids": [1] * 100})
    call = Call(request, "", 0, "tag", 0.01, False)
    taken = [Taken(1, 0, False, "", "r", 100, 16, 0, 0, "q", b"")]
    last = Output("r", 0, 15, (1,), "", True, "stop", None, Timings(0.01, 0.1, 0.5), "n")
    with measured() as cost:
        for _ in range(REQUESTS):
            stats.took(taken)
            stats.began(call, 0.1)
            stats.left(16, 0.61)
            stats.ended(last, 16)
    return cost.cpu_s / REQUESTS * 1e6


def scrape() -> float:
    """CPU of one page of a node, milliseconds."""
    settings = Settings(scheduler_name="global", engine="noop")
    node = Node(settings, _Nowhere(), "n@host")
    registry = CollectorRegistry()
    registry.register(NodeCollector(settings, node.name, lambda: Parts(node)))
    with measured() as cost:
        for _ in range(SCRAPES):
            generate_latest(registry)
    return cost.cpu_s / SCRAPES * 1e3


class _Nowhere:
    """An outbox that nobody uses here."""

    def send(self, origin: str, output: Output) -> bool:
        """Dropped."""
        del origin, output
        return False

    def is_congested(self, request_id: str) -> bool:
        """Never."""
        del request_id
        return False


if __name__ == "__main__":
    main()
