"""Continuous batching, shared by the engines that compute step by step themselves."""

from inferq.engines.batching.engine import BatchingEngine
from inferq.engines.batching.executor import Executor, Limits, Row

__all__ = ["BatchingEngine", "Executor", "Limits", "Row"]
