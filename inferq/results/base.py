"""The contract between a node and the origins of its requests."""

from __future__ import annotations

from typing import Protocol

from inferq.messages import Output


class Outbox(Protocol):
    """Where a node's tasks put outputs. Called from any thread; must not block."""

    def send(self, origin: str, output: Output) -> bool:
        """Pass an output on to its origin.

        Returns False when the origin does not want it any more: its request was cancelled,
        has expired, or has already ended. The task then stops. An empty origin (a stock
        Celery producer that reads only the final result) wants everything.
        """

    def is_congested(self, request_id: str) -> bool:
        """Whether a request had better wait before it produces more outputs."""


class Inbox(Protocol):
    """Where the outputs for one origin arrive."""

    def deliver(self, output: Output) -> bool:
        """Take one output; False when its request is not (or no longer) known here."""
