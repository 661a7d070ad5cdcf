"""A place for a demo that starts processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo.support import left_over


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a demo works, and has its temporary files; it must leave no process there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    assert left_over(tmp_path) == []
