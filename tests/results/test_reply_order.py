"""Attempts, gaps and repetitions: what a caller gets of outputs that come in any order."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.errors import RequestCancelled, RequestFailed
from inferq.messages import FinishReason, Output, error_output
from inferq.results.order import MOST_WAITING
from inferq.results.reply import Reply

EVERY_ATTEMPT = 1_000_000


def piece(index: int, tokens: str, *, attempt: int = 0, last: bool = False) -> Output:
    """An output whose token ids are the code points of its text."""
    return Output(
        "r",
        attempt,
        index,
        tuple(map(ord, tokens)),
        tokens,
        finished=last,
        finish_reason="stop" if last else None,
    )


def heard(reply: Reply) -> list[Output]:
    """What a reader gets, from the first output on."""
    outputs: list[Output] = []
    while (output := reply.at(len(outputs))) is not None:
        outputs.append(output)
        if output.finished:
            break
    return outputs


def told(reply: Reply) -> str:
    """The answer that a reader has in the end, who begins anew at each restart."""
    text: list[str] = []
    for output in heard(reply):
        if output.restarted:
            text.clear()
        assert output.index == sum(map(len, text))
        assert output.token_ids == tuple(map(ord, output.text))
        text.append(output.text)
    return "".join(text)


def test_outputs_that_come_too_early_wait_for_those_before() -> None:
    reply = Reply("r")
    reply.push(piece(3, "de", last=True))
    reply.push(piece(1, "bc"))
    assert heard(reply) == []
    reply.push(piece(0, "a"))
    assert [output.text for output in heard(reply)] == ["a", "bc", "de"]
    assert reply.result().text == "abcde"


def test_repeated_outputs_are_skipped() -> None:
    reply = Reply("r")
    for output in [piece(0, "ab"), piece(2, "c"), piece(0, "ab"), piece(2, "c"), piece(3, "d")]:
        assert reply.push(output)
    reply.push(piece(4, "", last=True))
    assert told(reply) == reply.result().text == "abcd"


def test_a_repeated_output_with_something_new_at_its_end_gives_the_new() -> None:
    reply = Reply("r")
    reply.push(piece(0, "ab"))
    reply.push(piece(2, "cd"))
    reply.push(piece(2, "cdef", last=True))
    assert told(reply) == "abcdef"


def test_a_newer_attempt_goes_on_where_the_older_one_was() -> None:
    reply = Reply("r")
    for output in [piece(0, "ab"), piece(2, "cd")]:
        reply.push(output)
    for output in [
        piece(0, "abc", attempt=1),
        piece(3, "def", attempt=1),
        piece(6, "g", attempt=1, last=True),
    ]:
        reply.push(output)
    assert [(o.index, o.text) for o in heard(reply)] == [(0, "ab"), (2, "cd"), (4, "ef"), (6, "g")]
    assert not any(output.restarted for output in heard(reply))
    assert reply.result().text == "abcdefg"


def test_an_older_attempt_is_not_heard_any_more() -> None:
    reply = Reply("r")
    reply.push(piece(0, "ab"))
    reply.push(piece(0, "a", attempt=2))
    assert not reply.push(piece(2, "cd", attempt=1))
    assert not reply.push(piece(2, "xx", last=True))
    assert not reply.push(error_output("r", FinishReason.ERROR, "lost", "x", attempt=1))
    reply.push(piece(1, "bcd", attempt=2, last=True))
    assert told(reply) == "abcd"


def test_what_waited_of_an_older_attempt_is_void() -> None:
    reply = Reply("r")
    reply.push(piece(2, "xx", last=True))
    reply.push(piece(0, "ab", attempt=1))
    assert reply.end is None
    reply.push(piece(2, "cd", attempt=1, last=True))
    assert told(reply) == "abcd"


def test_another_answer_of_a_newer_attempt_is_an_explicit_restart() -> None:
    reply = Reply("r")
    for output in [piece(0, "ab"), piece(2, "cd"), piece(0, "a", attempt=1)]:
        reply.push(output)
    reply.push(piece(1, "bXY", attempt=1))
    reply.push(piece(4, "Z", attempt=1, last=True))
    restart = heard(reply)[2]
    assert (restart.restarted, restart.index, restart.text) == (True, 0, "abXY")
    assert told(reply) == reply.result().text == "abXYZ"
    timings = reply.result().timings
    assert 0 <= timings.ttft_s <= timings.e2e_s
    assert timings.tpot_s >= 0


def test_who_begins_to_read_after_a_restart_begins_with_the_new_answer() -> None:
    reply = Reply("r")
    for output in [piece(0, "ab"), piece(0, "XY", attempt=1)]:
        reply.push(output)
    first = reply.at(reply.begin)
    assert first is not None
    assert (first.restarted, first.text) == (True, "XY")


def test_a_text_that_differs_over_the_same_tokens_is_a_restart_too() -> None:
    reply = Reply("r")
    reply.push(Output("r", 0, 0, (1, 2), "one two"))
    reply.push(Output("r", 1, 0, (1, 2), "one 2"))
    assert [output.restarted for output in heard(reply)] == [False, True]


def test_a_newer_attempt_that_ends_earlier_is_a_restart() -> None:
    reply = Reply("r")
    reply.push(piece(0, "abcd"))
    reply.push(piece(0, "ab", attempt=1, last=True))
    assert heard(reply)[-1].restarted
    assert reply.result().text == told(reply) == "ab"


def test_an_attempt_that_was_replaced_twice_is_compared_with_what_was_delivered() -> None:
    reply = Reply("r")
    reply.push(piece(0, "abcd"))
    reply.push(piece(0, "ab", attempt=1))
    reply.push(piece(0, "abcde", attempt=2))
    reply.push(piece(0, "a", attempt=3))
    reply.push(piece(1, "bcdef", attempt=3, last=True))
    assert [output.text for output in heard(reply)] == ["abcd", "e", "f"]


def test_an_error_ends_a_request_whatever_its_index() -> None:
    reply = Reply("r")
    reply.push(piece(0, "ab"))
    reply.push(error_output("r", FinishReason.ERROR, "engine_step", "it broke", attempt=0))
    assert reply.at(0) == piece(0, "ab")
    with pytest.raises(RequestFailed, match="it broke"):
        reply.at(1)
    assert not reply.push(piece(2, "c"))


def test_an_end_by_somebody_else_counts_for_every_attempt() -> None:
    reply = Reply("r")
    reply.push(piece(0, "ab", attempt=7))
    reply.push(error_output("r", FinishReason.CANCELLED, "cancelled", "x", attempt=EVERY_ATTEMPT))
    with pytest.raises(RequestCancelled):
        reply.result()


def test_too_many_outputs_after_a_missing_one_end_the_request() -> None:
    reply = Reply("r")
    for index in range(1, MOST_WAITING + 1):
        assert reply.push(piece(index, "x"))
    assert reply.end is None
    reply.push(piece(MOST_WAITING + 1, "x"))
    with pytest.raises(RequestFailed, match="output at 0 is missing"):
        reply.result()


cuts = st.sets(st.integers(1, 7), max_size=4)


def cut(answer: str, attempt: int, at: set[int]) -> list[Output]:
    """An answer in several outputs, the last of which ends it."""
    bounds = [0, *sorted(place for place in at if place < len(answer)), len(answer)]
    return [
        piece(start, answer[start:stop], attempt=attempt, last=stop == len(answer))
        for start, stop in pairwise(bounds)
    ]


@st.composite
def attempts(draw: st.DrawFn) -> list[tuple[str, list[Output]]]:
    """Answers that mostly agree, each cut into outputs in its own way."""
    full = draw(st.text("ab", min_size=1, max_size=8))
    answers = draw(
        st.lists(st.just(full) | st.text("ab", min_size=1, max_size=8), min_size=1, max_size=3)
    )
    return [(answer, cut(answer, number, draw(cuts))) for number, answer in enumerate(answers)]


@given(attempts(), st.data())
def test_any_order_and_repetition_gives_one_answer_and_its_end(
    rows: list[tuple[str, list[Output]]], data: st.DataObject
) -> None:
    everything = [output for _, outputs in rows for output in outputs]
    arrivals = data.draw(st.lists(st.sampled_from(everything), max_size=20))
    reply = Reply("r")
    for output in [*arrivals, *data.draw(st.permutations(rows[-1][1]))]:
        reply.push(output)
    assert reply.end is not None
    assert told(reply) == reply.result().text
    assert reply.result().text in {answer for answer, _ in rows}
    tokens = tuple(map(ord, reply.result().text))
    assert reply.result().token_ids == tokens


@given(st.text("ab", min_size=1, max_size=8), st.data())
def test_attempts_that_agree_never_restart_nor_repeat(answer: str, data: st.DataObject) -> None:
    rows = [cut(answer, number, data.draw(cuts)) for number in range(3)]
    everything = [output for row in rows for output in row]
    reply = Reply("r")
    for output in [*data.draw(st.lists(st.sampled_from(everything))), *rows[-1]]:
        reply.push(output)
    outputs = heard(reply)
    assert not any(output.restarted for output in outputs)
    assert "".join(output.text for output in outputs) == answer
    assert outputs[-1].finished
