from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferq.routing.placement import (
    MOST_CANDIDATES,
    Ask,
    NodeInfo,
    Phase,
    Placer,
    Shortlist,
    choose,
)
from inferq.routing.placement.policies.blur import decode_step, prefill_step
from inferq.settings.placement import POLICIES
from tests.routing.placement.support import ASK, node, placer, snapshot

PHASES: tuple[Phase, ...] = ("prefill", "decode")
LOADS = st.lists(st.integers(0, 3000), min_size=1, max_size=40)
PROMPTS = st.integers(1, 7000)


def loaded(loads: list[int]) -> list[NodeInfo]:
    """Nodes with these prefill tokens and decode tokens, and a hundredth of it in requests."""
    return [
        node(f"n{i}", prefill_tokens=n, decode_tokens=n, decode_requests=n // 100)
        for i, n in enumerate(loads)
    ]


@pytest.mark.parametrize(
    ("prompt_tokens", "step"),
    [
        (1, 100), (200, 100), (202, 101), (501, 250.5), (998, 499), (999, 499.5),
        # A tenth from 1,000 on.
        (1000, 100), (1010, 101), (3000, 300), (5000, 500), (100_000, 500),
    ],
)  # fmt: skip
def test_blur_step_of_prefill(prompt_tokens: int, step: float) -> None:
    assert prefill_step(prompt_tokens) == step


@pytest.mark.parametrize(("nodes", "step"), [(1, 1), (3, 3), (10, 10), (11, 10), (1000, 10)])
def test_blur_step_of_decode(nodes: int, step: int) -> None:
    assert decode_step(nodes) == step


@pytest.mark.parametrize(
    ("phase", "prompt_tokens", "loads", "proposed"),
    [
        # 100 tokens: the step is 100, and a load at least + step is out.
        ("prefill", 100, [0, 99, 100, 500], {"n0", "n1"}),
        ("prefill", 100, [1000, 1099, 1100], {"n0", "n1"}),
        ("prefill", 800, [0, 399, 400], {"n0", "n1"}),
        ("prefill", 4000, [0, 399, 400], {"n0", "n1"}),
        # Decode counts requests (a hundredth of the number); the step is the number of nodes.
        ("decode", 100, [0, 200, 299, 300], {"n0", "n1", "n2", "n3"}),
        ("decode", 100, [0, 200, 300], {"n0", "n1"}),
        ("decode", 100, [500], {"n0"}),
    ],
)
def test_blur_proposes_those_below_least_and_step(
    phase: Phase, prompt_tokens: int, loads: list[int], proposed: set[str]
) -> None:
    shortlist = placer("blur", phase, 1, *loaded(loads)).place(Ask(prompt_tokens, 1))
    assert set(shortlist.names) == proposed
    assert shortlist.load == ("prefill_tokens" if phase == "prefill" else "decode_requests")


@pytest.mark.parametrize(
    ("tokens", "rates", "order"),
    [
        # Rates not known: by tokens.
        ((300, 100, 200), (0, 0, 0), ["n1", "n2", "n0"]),
        # Seconds, not tokens: 3000/3000 + 1000/3000, 2000/1000 + 1, 1000/500 + 2.
        ((3000, 2000, 1000), (3000, 1000, 500), ["n0", "n1", "n2"]),
        # All idle: the fastest.
        ((0, 0, 0), (1000, 3000, 2000), ["n1", "n2", "n0"]),
        # The usual rate stands in for one that is not known.
        ((2000, 1000, 2001), (1000, 1000, 0), ["n1", "n0", "n2"]),
    ],
)
def test_least_time_of_prefill_is_predicted_seconds(
    tokens: tuple[int, ...], rates: tuple[float, ...], order: list[str]
) -> None:
    nodes = [
        node(f"n{i}", prefill_tokens=n, prefill_tokens_per_s=rate)
        for i, (n, rate) in enumerate(zip(tokens, rates, strict=True))
    ]
    shortlist = placer("least_time", "prefill", 1, *nodes).place(ASK)
    assert list(shortlist.names) == order
    loads = {n.name: float(n.prefill_tokens) for n in nodes}
    assert choose(shortlist, loads, lambda _: True) == order[0]


@settings(deadline=None)
@given(st.integers(0, 99))
def test_least_time_finds_the_fastest_of_many_idle_nodes(seed: int) -> None:
    nodes = [node(f"n{i}", prefill_tokens_per_s=1000 + i) for i in range(30)]
    assert placer("least_time", "prefill", seed, *nodes).place(ASK).names[0] == "n29"


def test_producers_begin_with_different_nodes_of_an_idle_topic() -> None:
    nodes = [node(f"n{i}") for i in range(100)]
    first = {placer("least_time", "prefill", seed, *nodes).place(ASK).names[0] for seed in range(9)}
    assert len(first) > 4


def test_least_time_predicts_seconds_in_its_costs() -> None:
    (only,) = (
        placer("least_time", "prefill", 1, node("a", prefill_tokens_per_s=500))
        .place(Ask(1000, 1))
        .candidates
    )
    assert only.bias + only.weight * 4000 == pytest.approx(10)


def test_least_time_of_decode_is_fewest_pledged_tokens() -> None:
    nodes = [
        node("a", decode_tokens=500, decode_requests=1),
        node("b", decode_tokens=400, decode_requests=9, prefill_tokens=9999),
        node("c", decode_tokens=600, decode_tokens_per_s=1e6),
    ]
    shortlist = placer("least_time", "decode", 1, *nodes).place(ASK)
    assert shortlist.names == ("b", "a", "c")
    assert shortlist.load == "decode_tokens"
    assert choose(shortlist, {"a": 500, "b": 501, "c": 600}, lambda _: True) == "a"


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=9, max_size=60), st.integers(0, 99))
def test_least_time_always_proposes_the_best(loads: list[int], seed: int) -> None:
    for phase in PHASES:
        shortlist = placer("least_time", phase, seed, *loaded(loads)).place(ASK)
        best = sorted(loads)[:2]
        assert [loads[int(name[1:])] for name in shortlist.names[:2]] == best


@pytest.mark.parametrize("phase", PHASES)
def test_pull_proposes_nobody_and_complains_of_nothing(phase: Phase) -> None:
    shortlist = placer("pull", phase, 1, node("a")).place(ASK)
    assert shortlist.candidates == ()
    assert shortlist.reason == ""


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 99))
def test_round_robin_visits_all_before_it_comes_back(count: int, seed: int) -> None:
    made = placer("round_robin", "prefill", seed, *(node(f"n{i}") for i in range(count)))
    chosen = [choose(s, dict.fromkeys(s.names, 1), lambda _: True) for s in places(made, 2 * count)]
    assert len(set(chosen[:count])) == count
    assert chosen[count:] == chosen[:count]


def test_round_robin_goes_on_where_it_was_with_a_new_snapshot() -> None:
    nodes = [node(name) for name in "abcd"]
    made = placer("round_robin", "prefill", 1, *nodes)
    seen = []
    for _ in range(4):
        made.refresh(snapshot(*nodes))
        seen.append(made.place(ASK).names[0])
    assert sorted(seen) == list("abcd")


def test_round_robin_has_the_next_stand_in() -> None:
    made = placer("round_robin", "prefill", 1, *(node(name) for name in "abc"))
    shortlist = made.place(ASK)
    first, second, _ = shortlist.names
    loads = dict.fromkeys("abc", 0)
    loads[second] = 10**6
    assert choose(shortlist, loads, lambda name: name != first) == second


def test_random_is_even_and_blind() -> None:
    made = placer("random", "prefill", 1, *loaded([0, 3000, 3000, 3000]))
    chosen = [choose(s, {"n0": 0, "n1": 9, "n2": 9, "n3": 9}, lambda _: True)
              for s in places(made, 4000)]  # fmt: skip
    assert all(850 < chosen.count(f"n{i}") < 1150 for i in range(4))


def test_power_of_two_takes_the_less_loaded_of_two() -> None:
    made = placer("power_of_two", "prefill", 1, *loaded([0, 100, 200]))
    loads = {"n0": 0, "n1": 100, "n2": 200}
    chosen = [choose(s, loads, lambda _: True) for s in places(made, 3000)]
    # The idlest wins both of its three pairs, the busiest none.
    assert chosen.count("n2") == 0
    assert 1850 < chosen.count("n0") < 2150


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None)
@given(loads=LOADS, prompt=PROMPTS, seed=st.integers(0, 99))
def test_shortlists_are_short_without_repetition_and_deterministic(
    policy: str, phase: Phase, loads: list[int], prompt: int, seed: int
) -> None:
    nodes = loaded(loads)
    shortlists = [placer(policy, phase, seed, *nodes).place(Ask(prompt, 10)) for _ in range(2)]
    assert shortlists[0] == shortlists[1]
    names = shortlists[0].names
    assert len(names) == len(set(names)) == (0 if policy == "pull" else len(names))
    assert len(names) <= MOST_CANDIDATES
    assert set(names) <= {n.name for n in nodes}
    if policy not in {"pull", "blur"}:
        assert len(names) == min(len(nodes), MOST_CANDIDATES)


@settings(deadline=None)
@given(LOADS, PROMPTS, st.integers(0, 99))
def test_what_blur_proposes_lies_within_the_step(loads: list[int], prompt: int, seed: int) -> None:
    shortlist = placer("blur", "prefill", seed, *loaded(loads)).place(Ask(prompt, 10))
    close = [i for i, n in enumerate(loads) if n < min(loads) + prefill_step(prompt)]
    assert {int(name[1:]) for name in shortlist.names} <= set(close)
    assert len(shortlist.names) == min(len(close), MOST_CANDIDATES)
    assert shortlist.slack == prefill_step(prompt)


def test_blur_chooses_evenly_among_those_within_the_step() -> None:
    chosen = []
    random = Random(1)
    for _ in range(2000):
        made = placer("blur", "prefill", random.randrange(10**9), *loaded([0, 50, 99, 100]))
        shortlist = made.place(Ask(100, 1))
        loads = {"n0": 0, "n1": 50, "n2": 99, "n3": 100}
        chosen.append(choose(shortlist, loads, lambda _: True))
    assert all(570 < chosen.count(f"n{i}") < 770 for i in range(3))


def places(made: Placer, count: int) -> list[Shortlist]:
    """The shortlists of so many equal requests."""
    return [made.place(ASK) for _ in range(count)]
