"""Percentiles, states and what reaches the terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from inferq.demo.chat import Row, row_states
from inferq.demo.live import printable
from inferq.demo.records import Record, failed_record, percentile
from inferq.demo.report import percentile_rows, print_answers, print_load, total_line
from inferq.errors import QueueFull, RequestCancelled, RequestExpired, RequestFailed
from inferq.results.reply import ResultTimings


def finished(tokens: int, queue_s: float) -> Record:
    return Record("finished", tokens, timings=ResultTimings(queue_s, 2 * queue_s, 0.01, 1.0))


def test_percentiles_are_interpolated() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([0.0, 10.0], 0.9) == pytest.approx(9.0)
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


@given(
    values=st.lists(st.floats(-1e9, 1e9), min_size=1),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_percentiles_grow_and_stay_among_the_values(
    values: list[float], shares: tuple[float, float]
) -> None:
    low, high = (percentile(values, share) for share in sorted(shares))
    slack = 1e-6
    assert min(values) - slack <= low <= high + slack
    assert high <= max(values) + slack


def test_a_single_token_has_no_time_per_output_token() -> None:
    records = [finished(1, 0.5), Record("failed", error="no")]
    assert [name for name, _ in percentile_rows(records)] == [
        "queue",
        "time to first token",
        "end to end",
    ]


def test_totals_count_each_end_and_all_tokens() -> None:
    records = [finished(10, 0.1), finished(20, 0.1), Record("expired"), Record("cancelled")]
    line = total_line(records, 2.0)
    assert "(2 finished, 0 failed, 1 expired, 1 cancelled), 30 tokens" in line
    assert "2.0 requests/s, 15.0 tokens/s" in line


def test_the_report_of_nothing_is_a_total_of_nothing() -> None:
    out = io.StringIO()
    print_load(Console(file=out), [], wall_s=0.0, late_s=0.0, speedup=1.0)
    assert "total: 0 requests" in out.getvalue()


def test_reasons_of_failures_are_summed_up() -> None:
    out = io.StringIO()
    failed = failed_record(RequestFailed("r1", "the prompt is too long", "too_large"))
    print_load(Console(file=out), [failed] * 3, wall_s=1.0, late_s=0.0, speedup=1.0)
    assert "failed 3 times: the prompt is too long [too_large]" in out.getvalue()


def test_every_error_has_its_end() -> None:
    assert failed_record(RequestCancelled("r", "x")).end == "cancelled"
    assert failed_record(RequestExpired("r", "x")).end == "expired"
    assert failed_record(RequestFailed("r", "x")).end == "failed"
    assert failed_record(QueueFull(1, ["r"])).end == "refused"


def test_an_answer_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[31mb\r\nc\x07") == "a\ufffd[31mb\ufffd\nc\ufffd"
    assert printable("a\n\n b", one_line=True) == "a b"
    out = io.StringIO()
    row = Row(1, "[bold]prompt[/bold]", "[/red] \x1b[2J", [1, 2, 3], Record("finished", 3))
    print_answers(Console(file=out), [row])
    assert "[bold]prompt[/bold]" in out.getvalue()
    assert "[/red]" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_the_last_of_the_silent_requests_are_in_the_queue() -> None:
    rows = [Row(number, "") for number in range(1, 6)]
    rows[0].record = Record("finished")
    rows[1].token_ids = [1]
    assert row_states(rows, 2) == ["finished", "decode", "prefill", "queued", "queued"]
    assert row_states(rows, 9)[2:] == ["queued"] * 3
