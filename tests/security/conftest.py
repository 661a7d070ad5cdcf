"""A topic of its own for each test."""

from __future__ import annotations

from tests.faults.conftest import hasty_cluster, make_cluster

__all__ = ["hasty_cluster", "make_cluster"]
