"""The chaos command itself, for as long as a test may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.chaos import MODES, Options, read_options, run


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path, mode: str) -> None:
    nodes = 3 if mode == "global" else 5
    options = Options(
        kills=10, nodes=nodes, seed=5, rate=20.0, lease=1.0, kills_per_s=2.0, mode=mode
    )
    tally, recoveries = run(options, tmp_path)
    assert tally.sent > 0
    assert (tally.finished, tally.failed, tally.lost, tally.doubled) == (tally.sent, 0, 0, 0)
    assert len(recoveries) == 10


def test_every_option_has_a_default() -> None:
    assert read_options([]).kills == 100
    assert read_options(["--kills", "3", "--lease", "0.5"])[:1] == (3,)


def test_nodes_of_each_role_are_killed() -> None:
    assert set(read_options([]).roles) == {"mixed"}
    for mode in ("splitwise", "concurrent"):
        assert set(read_options(["--mode", mode]).roles) == {"prefill", "decode", "mixed"}
