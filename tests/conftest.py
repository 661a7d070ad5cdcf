"""What many tests need: clients on fast engines, and settings free of the caller's machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferq import Client, Settings

#: Nothing here takes this long; a wait that reaches it has failed.
LONG_S = 60.0


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("INFERQ_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def client() -> Iterator[Client]:
    """A local client on the simulated engine, without waiting."""
    with Client(fast()) as running:
        yield running


def fast(**values: object) -> Settings:
    """Settings of a simulated engine that computes as fast as it can."""
    options = {"speedup": float("inf"), "vocab_size": 1000, "max_model_len": 4096}
    given = values.pop("simulated", {})
    assert isinstance(given, dict)
    return Settings(engine="simulated", simulated={**options, **given}, **values)


def slow(**values: object) -> Settings:
    """Settings of an engine with one slot whose every step takes minutes."""
    return fast(simulated={"speedup": 0.001, "max_slots": 1}, **values)
