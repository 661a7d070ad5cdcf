from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferq.routing.placement import Candidate, Shortlist, choose
from inferq.routing.placement.shortlist import checked

A, B, C = Candidate("a"), Candidate("b"), Candidate("c")
NAMES = st.sampled_from([f"n{i}" for i in range(12)])
LOADS = st.integers(0, 50_000)
SHORTLISTS = st.builds(
    Shortlist,
    st.lists(
        st.builds(Candidate, NAMES, st.floats(0, 4), st.floats(0, 5000)),
        max_size=8,
        unique_by=lambda candidate: candidate.name,
    ).map(tuple),
    slack=st.floats(0, 1000),
    among=st.integers(1, 8),
)
ALL_LOADS = st.fixed_dictionaries({f"n{i}": LOADS for i in range(12)})


@pytest.mark.parametrize(
    ("shortlist", "loads", "able", "chosen"),
    [
        # Nobody proposed, nobody able.
        (Shortlist(), {}, "", None),
        (Shortlist((A, B)), {"a": 0, "b": 0}, "", None),
        # The least cost; the first of equals.
        (Shortlist((A, B, C)), {"a": 9, "b": 5, "c": 7}, "abc", "b"),
        (Shortlist((B, A, C)), {"a": 5, "b": 5, "c": 7}, "abc", "b"),
        # Not the one that cannot take it, however idle.
        (Shortlist((A, B, C)), {"a": 9, "b": 5, "c": 7}, "ac", "c"),
        # The first within the slack; at the slack is no more within.
        (Shortlist((A, B), slack=5), {"a": 9, "b": 5}, "ab", "a"),
        (Shortlist((A, B), slack=4), {"a": 9, "b": 5}, "ab", "b"),
        # Only so many of the able ones are compared.
        (Shortlist((A, B, C), among=2), {"a": 9, "b": 5, "c": 1}, "abc", "b"),
        (Shortlist((A, B, C), among=2), {"a": 9, "b": 5, "c": 1}, "ac", "c"),
        (Shortlist((A, B, C), among=1), {"a": 9, "b": 5, "c": 1}, "bc", "b"),
        # Weights and biases.
        (Shortlist((Candidate("a", 2.0), B)), {"a": 3, "b": 5}, "ab", "b"),
        (Shortlist((Candidate("a", 1.0, 3.0), B)), {"a": 3, "b": 5}, "ab", "b"),
        (Shortlist((Candidate("a", 0.0), B)), {"a": 99, "b": 5}, "ab", "a"),
        (Shortlist((Candidate("a", 1.0, -9.0), B)), {"a": 9, "b": 5}, "ab", "a"),
    ],
)
def test_the_rule_of_the_final_choice(
    shortlist: Shortlist, loads: dict[str, float], able: str, chosen: str | None
) -> None:
    assert choose(shortlist, loads, able.__contains__) == chosen


@settings(deadline=None)
@given(SHORTLISTS, ALL_LOADS, st.sets(NAMES))
def test_whoever_is_chosen_is_able_and_costs_less_than_least_and_slack(
    shortlist: Shortlist, loads: Mapping[str, int], able: set[str]
) -> None:
    chosen = choose(shortlist, loads, able.__contains__)
    compared = [c for c in shortlist.candidates if c.name in able][: shortlist.among]
    assert (chosen is None) == (not compared)
    if chosen is not None:
        assert chosen in able
        costs = {c.name: c.bias + c.weight * loads[c.name] for c in compared}
        least = min(costs.values())
        assert costs[chosen] == least or costs[chosen] < least + shortlist.slack


@settings(deadline=None)
@given(SHORTLISTS, ALL_LOADS, st.integers(0, 50_000))
def test_less_load_never_loses_a_request(
    shortlist: Shortlist, loads: dict[str, int], less: int
) -> None:
    chosen = choose(shortlist._replace(slack=0), loads, lambda _: True)
    if chosen is not None:
        lighter = {**loads, chosen: max(0, loads[chosen] - less)}
        assert choose(shortlist._replace(slack=0), lighter, lambda _: True) == chosen


@settings(deadline=None)
@given(SHORTLISTS, ALL_LOADS, NAMES, st.integers(0, 50_000))
def test_more_load_elsewhere_changes_nothing_without_slack(
    shortlist: Shortlist, loads: dict[str, int], other: str, more: int
) -> None:
    chosen = choose(shortlist._replace(slack=0), loads, lambda _: True)
    if chosen != other:
        heavier = {**loads, other: loads[other] + more}
        assert choose(shortlist._replace(slack=0), heavier, lambda _: True) == chosen


@pytest.mark.parametrize(
    ("shortlist", "words"),
    [
        (Shortlist(tuple(Candidate(str(i)) for i in range(9))), "9 candidates; at most 8"),
        (Shortlist((A, B, A)), "twice: a, b, a"),
        (Shortlist((A,), among=0), "among"),
        (Shortlist((A,), slack=-1), "slack"),
        (Shortlist((A,), slack=float("nan")), "slack"),
        (Shortlist((Candidate("a", -1),)), "weights"),
        (Shortlist((Candidate("a", 1, float("inf")),)), "biases"),
    ],
)
def test_a_shortlist_that_the_script_cannot_use_is_refused(
    shortlist: Shortlist, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        checked(shortlist)
