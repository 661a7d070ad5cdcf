"""The chaos command itself, for as long as a test may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.chaos import Options, read_options, run


@pytest.mark.slow
def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    options = Options(kills=10, nodes=3, seed=5, rate=20.0, lease=1.0, kills_per_s=2.0)
    tally, recoveries = run(options, tmp_path)
    assert tally.sent > 0
    assert (tally.finished, tally.failed, tally.lost, tally.doubled) == (tally.sent, 0, 0, 0)
    assert len(recoveries) == 10


def test_every_option_has_a_default() -> None:
    assert read_options([]).kills == 100
    assert read_options(["--kills", "3", "--lease", "0.5"])[:1] == (3,)
