"""Names of queues: work stays within its topic."""

from __future__ import annotations


def prefill_queue(topic: str, node: str | None = None) -> str:
    """The queue of new requests: shared by the topic, or one node's own."""
    return f"{topic}.prefill" if node is None else f"{topic}.prefill.{node}"


def decode_queue(topic: str, node: str | None = None) -> str:
    """The queue of prefilled requests: shared by the topic, or one node's own."""
    return f"{topic}.decode" if node is None else f"{topic}.decode.{node}"
