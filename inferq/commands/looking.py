"""``nodes`` and ``queues``: what is there at this moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferq.cluster.keys import STEPS
from inferq.cluster.view import NodeView, QueueView, View
from inferq.commands.call import Call, command
from inferq.commands.printing import Row, duration, print_json, print_table

NODES_HEAD = (
    "node", "role", "state", "lease", "load", "running", "queued", "oldest", "KV blocks",
    "tokens/s", "TTFT ms", "TPOT ms", "stolen", "engine", "version",
)  # fmt: skip
QUEUES_HEAD = ("queue", "waiting", *(f"p{step}" for step in STEPS), "oldest", "")


@command("nodes")
def nodes(call: Call) -> None:
    """The nodes of the topic: what they do, hold and have done."""
    with call.topic() as topic:
        seen = View(topic).nodes()
    if call.as_json:
        print_json([node_fields(node) for node in seen])
    else:
        empty = f"topic {call.settings.scheduler_topic} has no nodes"
        print_table(NODES_HEAD, map(node_row, seen), empty=empty)


@command("queues")
def queues(call: Call) -> None:
    """What waits, by queue and priority; also at nodes that are gone."""
    with call.topic() as topic:
        seen = View(topic).queues()
    if call.as_json:
        print_json([queue_fields(queue) for queue in seen])
    else:
        print_table(QUEUES_HEAD, map(queue_row, seen), empty="no queues")


def node_fields(node: NodeView) -> dict[str, Any]:
    """A node for JSON."""
    return {**node._asdict(), "load": node.load, "live": node.live}


def queue_fields(queue: QueueView) -> dict[str, Any]:
    """A queue for JSON."""
    return {**queue._asdict(), "length": queue.length}


def node_row(node: NodeView) -> Row:
    """A line of the table of nodes."""
    used = node.total_blocks - node.free_blocks
    return (
        node.name,
        node.role or "-",
        state_of(node),
        duration(node.lease_s),
        node.load,
        node.claims,
        node.queued,
        duration(node.oldest_s),
        f"{used}/{node.total_blocks}",
        f"{node.tokens_per_s:.1f}",
        _pair(node.ttft_ms),
        _pair(node.tpot_ms),
        f"-{node.stolen} +{node.stole}",
        node.engine or "-",
        node.version or "-",
    )


def state_of(node: NodeView) -> str:
    """The state of a node; one that should live and does not is lost."""
    if node.state in ("ready", "draining", "starting") and not node.live:
        return "lost"
    return node.state or "-"


def queue_row(queue: QueueView) -> Row:
    """A line of the table of queues."""
    mark = "orphaned" if queue.orphaned else ""
    return (queue.name, queue.length, *queue.lengths, duration(queue.oldest_s), mark)


def _pair(percentiles: Sequence[float]) -> str:
    return " / ".join(f"{value:.4g}" for value in percentiles) or "-"
