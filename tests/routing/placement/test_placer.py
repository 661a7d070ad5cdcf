from __future__ import annotations

import logging
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferq.routing.placement import (
    PREFILL,
    Ask,
    Candidate,
    NodeInfo,
    Phase,
    Placer,
    Policy,
    Pool,
    Shortlist,
)
from tests.routing.placement.support import ASK, NOW_MS, node, placer, snapshot

LAPSED = {"lease_until_ms": NOW_MS}
SMALL = {"longest": 1024}


@pytest.mark.parametrize(
    ("phase", "nodes", "proposed"),
    [
        ("prefill", [("a", {}), ("b", {"role": "prefill"}), ("c", {"role": "decode"})], "ab"),
        ("decode", [("a", {}), ("b", {"role": "prefill"}), ("c", {"role": "decode"})], "ac"),
        ("prefill", [("a", {}), ("b", {"ready": False}), ("c", LAPSED), ("d", SMALL)], "a"),
        # As large as it must be, and a token less.
        ("prefill", [("a", {"longest": 1100}), ("b", {"longest": 1099})], "a"),
    ],
)
def test_only_nodes_that_can_take_it_are_proposed(
    phase: Phase, nodes: list[tuple[str, dict[str, Any]]], proposed: str
) -> None:
    made = placer("random", phase, 1, *(node(name, **fields) for name, fields in nodes))
    assert sorted(made.place(ASK).names) == list(proposed)


@pytest.mark.parametrize("policy", ["pull", "blur", "least_time", "round_robin"])
@pytest.mark.parametrize(
    ("phase", "nodes", "reason"),
    [
        ("decode", [], "no decode node is ready (none is known)"),
        ("decode", [node("a", role="prefill")], "no decode node is ready (none is known)"),
        (
            "decode",
            [node("a", **LAPSED), node("b", ready=False), node("c", ready=False)],
            "no decode node is ready (2 not ready, 1 lease lapsed)",
        ),
        (
            "prefill",
            [node("a", **SMALL)],
            "1 prefill node is ready, it holds 1024 tokens; the request needs 6000",
        ),
        (
            "prefill",
            [node("a", longest=4096), node("b", **SMALL), node("c", **SMALL), node("d", **LAPSED)],
            "3 prefill nodes are ready, the largest holds 4096 tokens; the request needs 6000",
        ),
    ],
)
def test_without_a_node_the_reason_says_what_to_do(
    policy: str, phase: Phase, nodes: list[NodeInfo], reason: str
) -> None:
    shortlist = placer(policy, phase, 1, *nodes).place(Ask(5000, 1000))
    assert shortlist.candidates == ()
    assert shortlist.reason == reason


@settings(deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 510))
def test_with_many_sizes_nobody_too_small_is_proposed_and_the_largest_always_is(
    sizes: list[int], tokens: int
) -> None:
    nodes = [node(f"n{i}", longest=size) for i, size in enumerate(sizes)]
    shortlist = placer("random", "prefill", 1, *nodes).place(Ask(tokens, 0))
    assert all(sizes[int(name[1:])] >= tokens for name in shortlist.names)
    assert bool(shortlist.names) == (max(sizes) >= tokens)
    if len(set(sizes)) <= 32:
        assert len(shortlist.names) == min(8, sum(size >= tokens for size in sizes))


@pytest.mark.parametrize("policy", ["least_time", "blur"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_burst_between_two_snapshots_spreads(policy: str, phase: Phase) -> None:
    made = placer(policy, phase, 1, *(node(f"n{i}") for i in range(100)))
    expected: Counter[str] = Counter()
    for _ in range(200):
        made.place(Ask(1000, 100))
        expected[made.expected] += 1
    most = {"least_time": 2, "blur": 10}[policy]
    assert max(expected.values()) <= most
    assert policy == "blur" or len(expected) == 100


def test_what_was_sent_counts_until_a_newer_snapshot_arrives() -> None:
    nodes = [node("a"), node("b", prefill_tokens=500)]
    made = placer("least_time", "prefill", 1, *nodes)
    assert made.place(ASK).names[0] == "a"
    assert made.place(ASK).names[0] == "b"
    made.refresh(snapshot(*nodes))
    assert made.place(ASK).names[0] == "a"


def test_the_load_that_the_script_answers_counts() -> None:
    made = placer("least_time", "prefill", 1, node("a"), node("b", prefill_tokens=500))
    made.placed("a", 501)
    made.placed("gone", 7)
    assert made.place(ASK).names == ("b", "a")


def test_what_is_sent_while_a_snapshot_is_read_is_not_forgotten_with_it() -> None:
    nodes = [node("a"), node("b", prefill_tokens=500)]
    made = placer("least_time", "prefill", 1, *nodes)
    made.placed("b", 0)
    made.reading()
    made.placed("a", 900)
    made.refresh(snapshot(*nodes))
    assert made.place(ASK).names == ("b", "a")
    made.refresh(snapshot(*nodes))
    assert made.place(ASK).names == ("a", "b")


def test_loads_that_are_known_hold_for_requests_of_all_sizes() -> None:
    nodes = [node("a"), node("b", longest=2000, prefill_tokens=500), node("c", longest=64)]
    made = placer("least_time", "prefill", 1, *nodes)
    made.place(Ask(1, 1))
    made.placed("a", 900)
    assert made.place(Ask(1, 1)).names[-1] == "a"
    assert made.place(ASK).names == ("b", "a")


class Broken(Policy):
    """Answers what it is told to, or raises it."""

    answer: Shortlist | Exception = Shortlist()

    def shortlist(self, pool: Pool, ask: Ask) -> Shortlist:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        ZeroDivisionError("division by zero"),
        Shortlist(tuple(Candidate(str(i)) for i in range(9))),
        Shortlist((Candidate("a"), Candidate("a"))),
    ],
)
def test_a_policy_that_fails_sends_requests_to_the_shared_queue_and_is_reported(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Broken(PREFILL, Random(1))
    policy.answer = answer
    made = Placer(policy)
    made.refresh(snapshot(node("a")))
    with caplog.at_level(logging.ERROR):
        assert [made.place(ASK) for _ in range(3)] == [Shortlist()] * 3
        assert len(caplog.records) == 1
        made.refresh(snapshot(node("a")))
        made.place(ASK)
    assert len(caplog.records) == 2
    assert "Broken" in caplog.text


def test_a_policy_may_name_nodes_that_are_gone() -> None:
    policy = Broken(PREFILL, Random(1))
    policy.answer = Shortlist((Candidate("gone"), Candidate("a")))
    made = Placer(policy)
    made.refresh(snapshot(node("a")))
    assert made.place(ASK).names == ("gone", "a")
    assert made.expected == "a"
