"""The llamacpp engine: continuous batching over one llama.cpp context."""

from __future__ import annotations

from inferq.engines.batching import BatchingEngine
from inferq.engines.llamacpp.executor import LlamaCppExecutor
from inferq.settings import Settings


def create(settings: Settings) -> BatchingEngine:
    """The llamacpp engine as the settings describe it."""
    return BatchingEngine(
        LlamaCppExecutor(settings.llamacpp),
        reserved_output_blocks=settings.admission.reserved_output_blocks,
    )
