"""What many tests share: settings of fast and slow engines, and waiting for something to be so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from inferq import Settings

#: Nothing here takes this long; a wait that reaches it has failed.
LONG_S = 60.0


def fast(*, simulated: dict[str, Any] | None = None, **values: Any) -> Settings:
    """Settings of a simulated engine that computes as fast as it can."""
    options = {"speedup": float("inf"), "vocab_size": 1000, "max_model_len": 4096}
    return Settings(engine="simulated", simulated={**options, **(simulated or {})}, **values)


def slow(**values: Any) -> Settings:
    """Settings of an engine with one slot whose every step takes minutes."""
    return fast(simulated={"speedup": 0.001, "max_slots": 1}, **values)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that nobody signals."""
    pause = threading.Event()
    for _ in range(int(LONG_S / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come to be")
