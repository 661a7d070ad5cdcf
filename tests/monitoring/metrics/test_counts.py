"""What requests leave behind in a node's numbers."""

from __future__ import annotations

import threading

import pytest
from celery.app.task import Context

from inferq.cluster.rows import Taken
from inferq.messages import Crossing, ErrorInfo, Output, Request, Timings
from inferq.messages.headers import SIZE_HEADER
from inferq.results.backlog import Lag
from inferq.tasks.call import Before, Call
from inferq.worker.histogram import MOST_WORDS, Histogram, Tally
from inferq.worker.stats import Stats
from inferq.worker.tracer import current_context


def call(before: Before | None = None, **fields: object) -> Call:
    given = fields or {"prompt_token_ids": [1, 2, 3]}
    request = Request.parse({"request_id": "r", **given})
    return Call(request, "", 0, "tag", 2.0, False, before)


def taken(source: str = "", attempt: int = 0) -> Taken:
    return Taken(1, attempt, attempt > 0, source, "r", 0, 0, 0, 0, "q", b"")


def last(reason: str, error: ErrorInfo | None = None, decode_s: float = 0.9) -> Output:
    timings = None if error else Timings(1.0, 1.0, decode_s)
    return Output("r", 0, 9, (1,), "", True, reason, error, timings)


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    histogram = Histogram([1, 2])
    for value in (0.5, 1, 1.5, 2, 99):
        histogram.observe(value)
    assert histogram.read().counts == [2, 4, 5]
    assert histogram.read().total == 104


def test_words_of_a_tally_are_bounded() -> None:
    tally = Tally(["known"], "other")
    for number in range(1000):
        tally.add(f"word {number}")
    tally.add("known")
    counts = tally.read()
    assert len(counts) <= MOST_WORDS + 1
    assert counts["known"] == 1
    assert sum(counts.values()) == 1001


@pytest.mark.parametrize(
    ("reason", "error", "end"),
    [
        ("stop", None, ("finished", "stop")),
        ("length", None, ("finished", "length")),
        ("error", ErrorInfo("engine", "m"), ("failed", "engine")),
        ("cancelled", ErrorInfo("cancelled", "m"), ("cancelled", "cancelled")),
        ("expired", ErrorInfo("expired", "m"), ("expired", "expired")),
        ("what an engine made up", None, ("failed", "what an engine made up")),
    ],
)
def test_each_end_counts_once(reason: str, error: ErrorInfo | None, end: tuple[str, str]) -> None:
    stats = Stats()
    stats.ended(last(reason, error), 10)
    ends = stats.totals().ends
    assert ends[end] == 1
    assert sum(ends.values()) == 1


def test_times_of_a_request_are_seen() -> None:
    stats = Stats()
    stats.began(call(), 0.5)
    stats.ended(last("stop"), 10)
    stats.left(10, 3.25)
    stats.left(4, None)
    totals = stats.totals()
    assert totals.queue_wait.total == 2.0
    assert totals.first_token.total == 2.5
    assert totals.per_token.total == pytest.approx(0.1)
    assert (totals.whole.total, totals.whole.counts[-1]) == (3.25, 1)
    assert (totals.prompt_tokens, totals.output_tokens) == (3, 14)


def test_the_length_of_a_text_is_what_the_intake_has_measured() -> None:
    stats = Stats()
    token = current_context.set(Context({SIZE_HEADER: [77, 5]}))
    try:
        stats.began(call(prompt="some text"), 0.5)
    finally:
        current_context.reset(token)
    assert stats.totals().prompt_tokens == 77


def test_a_decode_counts_its_transfer_and_no_second_first_token() -> None:
    stats = Stats()
    crossing = Crossing("p@host", "tcp", 1000, 0.25)
    for _ in range(2):
        stats.began(call(Before((1,), "", False, 1.0, 1.0, crossing)), 0.5)
    stats.began(call(Before((1,), "", False, 1.0, 1.0, Crossing("p@host"))), 0.5)
    totals = stats.totals()
    assert totals.transfers == {"tcp": (2, 2000, 0.5)}
    assert totals.first_token.counts[-1] == 0


def test_messages_count_by_where_they_came_from() -> None:
    stats = Stats()
    stats.took([taken(), taken("victim", 1), taken(attempt=2)])
    totals = stats.totals()
    assert (totals.taken["queue"], totals.taken["stolen"], totals.retried) == (2, 1, 2)


def test_recoveries_count_what_they_returned_and_buried() -> None:
    stats = Stats()
    stats.recovered(3, 1)
    stats.recovered(2, 0)
    totals = stats.totals()
    assert (totals.recoveries, totals.recovered, totals.letters["attempts"]) == (2, 5, 1)


def test_no_count_is_lost_between_threads() -> None:
    stats = Stats()

    def work() -> None:
        for _ in range(2000):
            stats.ended(last("stop"), 10)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stats.totals().ends["finished", "stop"] == 16_000


def test_the_lag_is_that_of_the_oldest_end_and_forgets_what_was_confirmed() -> None:
    unsettled: set[int] = set()
    lag = Lag(lambda: frozenset(unsettled))
    assert lag.read() == (0, 0.0)
    for claim in (1, 2):
        unsettled.add(claim)
        lag.begin(claim)
    first = lag.read()
    assert first.ends == 2
    threading.Event().wait(0.02)
    unsettled.discard(1)
    assert lag.read().oldest_s >= 0.02
    unsettled.discard(2)
    assert lag.read() == (0, 0.0)
    assert lag._since == {}
