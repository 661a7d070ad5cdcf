"""An engine that takes every request and fails with what nobody expects."""

from __future__ import annotations

from collections.abc import AsyncIterator

from inferq.engines import Chunk, Engine
from inferq.messages import Request
from inferq.settings import Settings
from tests.faults.engine import CountingEngine


class BrokenEngine(CountingEngine):
    """Out of order."""

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Nothing."""
        raise ZeroDivisionError("out of order")


def factory(settings: Settings) -> Engine:
    """What ``engine = "tests.monitoring.broken_engine:factory"`` calls."""
    del settings
    return BrokenEngine()
