"""All metrics by name. docs/metrics.md says more about each."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram", "info"]


class Metric(NamedTuple):
    """A metric: its name on the wire, what it counts, and its labels beside the constant ones."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


#: What a worker tells of itself; each has the labels topic and node, too.
NODE = (
    Metric("inferq_node_info", "info", "What the node is", ("role", "engine", "version")),
    Metric(
        "inferq_requests_total",
        "counter",
        "Requests that ended at this node: finished, failed, cancelled or expired, and why",
        ("end", "reason"),
    ),
    Metric(
        "inferq_queue_wait_seconds",
        "histogram",
        "From submission to the start on a node, of requests that got a first token",
    ),
    Metric("inferq_time_to_first_token_seconds", "histogram", "From submission to the first token"),
    Metric(
        "inferq_time_per_output_token_seconds",
        "histogram",
        "Mean time between the tokens of an answer after the first",
    ),
    Metric("inferq_request_seconds", "histogram", "From submission to the end of a whole answer"),
    Metric("inferq_prompt_tokens_total", "counter", "Prompt tokens of requests prefilled here"),
    Metric("inferq_output_tokens_total", "counter", "Tokens of answers computed here"),
    Metric(
        "inferq_taken_requests_total",
        "counter",
        "Messages that this node took: from a queue, or stolen from another node",
        ("source",),
    ),
    Metric("inferq_retried_requests_total", "counter", "Messages taken that were started before"),
    Metric("inferq_recoveries_total", "counter", "Times this node gave back what a lost node had"),
    Metric(
        "inferq_recovered_requests_total", "counter", "Requests of lost nodes queued again by it"
    ),
    Metric("inferq_dead_letters_total", "counter", "Dead letters that this node made", ("reason",)),
    Metric("inferq_lost_leases_total", "counter", "Times this node lost its lease"),
    Metric("inferq_missed_renewals_total", "counter", "Attempts to renew the lease that failed"),
    Metric("inferq_running_requests", "gauge", "Requests taken and not finished"),
    Metric("inferq_slots", "gauge", "Requests that the engine computes at once", ("state",)),
    Metric("inferq_kv_blocks", "gauge", "Blocks of KV cache in the engine", ("state",)),
    Metric("inferq_engine_stalled", "gauge", "1: it has work and makes no progress"),
    Metric("inferq_kept_kv_bytes", "gauge", "KV caches kept until a decode node fetches them"),
    Metric("inferq_kept_kv_caches", "gauge", "KV caches kept until a decode node fetches them"),
    Metric("inferq_kept_kv_limit_bytes", "gauge", "Most bytes of KV caches that it keeps"),
    Metric("inferq_transfers_total", "counter", "KV caches that arrived here", ("protocol",)),
    Metric("inferq_transfer_bytes_total", "counter", "Bytes of them", ("protocol",)),
    Metric("inferq_transfer_seconds_total", "counter", "Time that took", ("protocol",)),
    Metric("inferq_outbox_ends", "gauge", "Requests whose end here is not written to Redis yet"),
    Metric("inferq_outbox_oldest_seconds", "gauge", "Longest that such an end has waited"),
)

#: What Redis tells of a topic; each has the label topic, too.
CLUSTER = (
    Metric("inferq_redis_up", "gauge", "1: the topic could be read from Redis, lately"),
    Metric("inferq_cluster_nodes", "gauge", "Nodes that are known, by state", ("state",)),
    Metric(
        "inferq_cluster_node_info",
        "info",
        "What a node is",
        ("node", "role", "state", "engine", "version"),
    ),
    Metric("inferq_cluster_node_up", "gauge", "1: the node holds a lease", ("node",)),
    Metric("inferq_cluster_node_queued_requests", "gauge", "Requests in its own queues", ("node",)),
    Metric("inferq_cluster_node_claimed_requests", "gauge", "Taken, not finished", ("node",)),
    Metric(
        "inferq_cluster_node_stolen_requests_total",
        "counter",
        "Requests that other nodes took from its queues",
        ("node",),
    ),
    Metric("inferq_cluster_node_slots", "gauge", "As inferq_slots", ("node", "state")),
    Metric("inferq_cluster_node_kv_blocks", "gauge", "As inferq_kv_blocks", ("node", "state")),
    Metric(
        "inferq_cluster_queued_requests",
        "gauge",
        "Requests in the shared queue of a phase",
        ("phase",),
    ),
    Metric("inferq_cluster_dead_letters", "gauge", "Dead letters that are kept"),
)
