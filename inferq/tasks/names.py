"""The names of the tasks, as they stand in messages."""

from __future__ import annotations

PREFILL = "inferq.prefill"
DECODE = "inferq.decode"
