from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.routing.stealing import Victim, surplus


@pytest.mark.parametrize(
    ("load", "waited_s", "own_load", "min_load", "taken"),
    [
        # Not above the bound: nothing, however idle the thief.
        (1, 0, 0, 3, 0),
        (3, 0, 0, 3, 0),
        # Above it: half of what is above, at least one.
        (4, 0, 0, 3, 1),
        (6, 0, 0, 3, 1),
        (7, 0, 0, 3, 2),
        (103, 0, 0, 3, 50),
        # A bound need not be a whole number.
        (4, 0, 0, 3.5, 1),
        (8, 0, 0, 3.5, 2),
        # Half of the difference, when the thief has more to do than the bound.
        (12, 0, 6, 3, 3),
        # The two would only swap places.
        (4, 0, 3, 3, 0),
        (5, 0, 3, 3, 1),
        (7, 0, 6, 3, 0),
        (7, 0, 9, 3, 0),
        # Without a bound one is left to its owner, which may just be taking it.
        (1, 0, 0, 0, 0),
        (2, 0, 0, 0, 1),
        # Whatever the loads, the first may go when it has waited too long.
        (1, 9.9, 0, 3, 0),
        (1, 10, 0, 3, 1),
        (2, 11, 8, 3, 1),
        (1, math.inf, 0, 3, 1),
        # That is one, and the rest by load.
        (7, 11, 0, 3, 2),
    ],
)
def test_how_many_may_be_taken(
    load: int, waited_s: float, own_load: int, min_load: float, taken: int
) -> None:
    assert surplus(Victim(load, waited_s), own_load, min_load, steal_after_s=10) == taken


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.floats(0, 1000))
def test_a_theft_never_turns_the_tables(load: int, own_load: int, min_load: float) -> None:
    taken = surplus(Victim(load, 0), own_load, min_load, steal_after_s=10)
    if taken:
        assert load - taken >= own_load + taken
