"""What the demo says of requests whose phases ran on two nodes."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from inferq.demo.chat import Row
from inferq.demo.crossings import find_faults, print_comparison, print_crossings
from inferq.demo.records import Record
from inferq.messages import Crossing
from inferq.results.reply import ResultTimings

TIMES = ResultTimings(queue_s=0.1, ttft_s=0.25, tpot_s=0.01, e2e_s=1.5)
SPLIT = Row(
    1,
    "a prompt",
    token_ids=[7, 8, 9],
    record=Record("finished", 3, timings=TIMES),
    node="decode0@demo",
    crossing=Crossing("prefill0@demo", "tcp", 23_053, 0.0042),
)
ALONE = replace(SPLIT, node="inferq@here", crossing=None)


def shown(row: Row, alone: list[Row]) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80)
    print_crossings(console, [row])
    print_comparison(console, [row], alone)
    return " ".join(out.getvalue().split())


def test_a_request_that_crossed_and_is_equal_has_no_fault() -> None:
    assert find_faults([SPLIT], [ALONE]) == []
    text = shown(SPLIT, [ALONE])
    assert "#1 prefill0 -> decode0 23,053 tcp 4.2 " in text
    assert text.endswith("#1 3 250.0 1500.0 yes")


@pytest.mark.parametrize(
    ("token_ids", "position"), [([7, 8, 1], 2), ([7, 8], 2), ([7, 8, 9, 9], 3), ([], 0)]
)
def test_the_first_token_that_differs_is_named(token_ids: list[int], position: int) -> None:
    other = replace(ALONE, token_ids=token_ids)
    assert find_faults([SPLIT], [other]) == [f"#1 differs from token {position} on"]
    assert shown(SPLIT, [other]).endswith("NO")


@pytest.mark.parametrize(
    ("row", "alone", "fault"),
    [
        (replace(SPLIT, crossing=None), ALONE, "#1 was computed by decode0@demo alone"),
        (
            replace(SPLIT, node="mixed0@demo", crossing=Crossing("mixed0@demo", "memfd", 9, 0.1)),
            ALONE,
            "#1 was computed by mixed0@demo alone",
        ),
        (
            replace(SPLIT, crossing=Crossing("prefill0@demo")),
            ALONE,
            "#1 was continued by decode0@demo without its KV cache",
        ),
        (
            replace(SPLIT, record=Record("failed", error="no\nroom")),
            ALONE,
            "#1 failed on two nodes: no room",
        ),
        (SPLIT, replace(ALONE, record=None), "#1 cancelled on a single engine: "),
    ],
)
def test_each_way_to_go_wrong_is_told_apart(row: Row, alone: Row, fault: str) -> None:
    assert find_faults([row], [alone]) == [fault]


def test_without_a_comparison_nothing_is_said_about_equality() -> None:
    assert shown(SPLIT, []).endswith("1500.0 -")


def test_a_request_that_nobody_ended_has_no_place() -> None:
    text = shown(Row(2, "a prompt"), [])
    assert "#2 - - - - " in text
    assert text.endswith("#2 0 - - -")
