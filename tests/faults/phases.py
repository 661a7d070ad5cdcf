"""Where requests are in their life, as the journal of their engines has it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from inferq import Output
from inferq.client import Handle
from tests.cluster_harness import DECODE_QUEUE, Cluster
from tests.faults.answers import check_outputs
from tests.faults.processes import Process

#: An engine has nothing more to do with a request.
ENDS = ("end", "handed", "abort")


def at(cluster: Cluster, node: Process, what: str) -> list[str]:
    """The requests of which ``what`` is the last that this node did with them."""
    last = {e.request_id: e.what for e in cluster.journal() if e.pid == node.pid}
    return [name for name, seen in last.items() if seen == what]


def wait_at(cluster: Cluster, node: Process, what: str, count: int = 1) -> None:
    """Wait until so many requests are there."""
    cluster.wait(lambda: len(at(cluster, node, what)) >= count)


class Readers:
    """Callers that read the answers of some requests bit by bit."""

    def __init__(self, handles: Sequence[Handle]) -> None:
        self._streams = [handle.stream() for handle in handles]
        self._read: list[list[Output]] = [[] for _ in handles]

    def read(self, count: int) -> None:
        """Wait for so many more outputs of each."""
        for stream, outputs in zip(self._streams, self._read, strict=True):
            outputs.extend(islice(stream, count))

    def check(self, tokens: int = 20) -> None:
        """Read the rest: each got its whole answer."""
        for stream, outputs in zip(self._streams, self._read, strict=True):
            check_outputs([*outputs, *stream], tokens)


def wait_queued_for_decode(cluster: Cluster, count: int) -> None:
    """Wait until so many requests wait for a decode node."""
    cluster.wait(lambda: cluster.waiting_anywhere(DECODE_QUEUE) >= count)


def kept_kv(cluster: Cluster, node: Process) -> int:
    """Bytes of KV caches that a node keeps, as it said last."""
    return int(cluster.record(node).get("kept_kv", 0))


def check_balanced(cluster: Cluster, *nodes: Process) -> None:
    """The engines of nodes that were not killed ended what they had begun."""
    pids = {node.pid for node in nodes}

    def is_balanced() -> bool:
        entries = [e.what for e in cluster.journal() if e.pid in pids]
        begun = sum(what in ("start", "prefill", "decode") for what in entries)
        return begun == sum(what in ENDS for what in entries)

    cluster.wait(is_balanced)
