from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferq.errors import RequestCancelled, RequestExpired, RequestFailed
from inferq.messages import FinishReason, Output, Timings, error_output
from inferq.results.reply import Reply

LONG_S = 60.0


def piece(index: int, *, last: bool = False) -> Output:
    return Output(
        "r",
        index=index,
        token_ids=(index,),
        text=f"{index} ",
        finished=last,
        finish_reason="stop" if last else None,
        timings=Timings(0.5, 0.1, 0.2) if last else None,
    )


def read(reply: Reply) -> list[int]:
    """Read to the end, waiting as the client does."""
    got: list[int] = []
    while True:
        output = reply.at(len(got))
        if output is None:
            woken = threading.Event()
            if reply.wait_after(len(got), woken.set):
                assert woken.wait(LONG_S)
            else:
                reply.stop_waiting(woken.set)
            continue
        got += output.token_ids
        if output.finished:
            return got


def test_readers_beside_a_writer_lose_nothing() -> None:
    count, readers = 3000, 3
    reply = Reply("r")
    with ThreadPoolExecutor(readers) as pool:
        futures = [pool.submit(read, reply) for _ in range(readers)]
        for index in range(count):
            assert reply.push(piece(index, last=index == count - 1))
        assert all(future.result(LONG_S) == list(range(count)) for future in futures)


def test_the_whole_answer_is_put_together() -> None:
    reply = Reply("r")
    for index in range(3):
        reply.push(piece(index, last=index == 2))
    result = reply.result()
    assert result.token_ids == (0, 1, 2)
    assert result.text == "0 1 2 "
    assert result.finish_reason == "stop"
    timings = result.timings
    assert timings.queue_s == 0.5
    assert 0 <= timings.ttft_s <= timings.e2e_s < LONG_S
    assert timings.tpot_s >= 0


def test_nothing_is_taken_after_the_end() -> None:
    reply = Reply("r")
    assert reply.push(piece(0, last=True))
    assert not reply.push(piece(1))
    assert not reply.push(piece(1, last=True))
    assert reply.at(1) is None
    assert reply.result().token_ids == (0,)


def test_who_waits_for_an_output_is_woken_by_it_once() -> None:
    reply = Reply("r")
    woken: list[str] = []
    assert reply.wait_after(0, lambda: woken.append("next"))
    assert reply.wait_end(lambda: woken.append("end"))
    reply.push(piece(0))
    reply.push(piece(1))
    assert woken == ["next"]
    reply.push(piece(2, last=True))
    assert woken == ["next", "end"]


def test_who_waits_for_what_is_there_is_told_so() -> None:
    reply = Reply("r")
    reply.push(piece(0))
    assert not reply.wait_after(0, lambda: None)
    assert reply.wait_after(1, lambda: None)
    reply.push(piece(1, last=True))
    assert not reply.wait_after(9, lambda: None)
    assert not reply.wait_end(lambda: None)


def test_who_stops_waiting_is_not_woken() -> None:
    reply = Reply("r")
    woken: list[int] = []

    def wake() -> None:
        woken.append(1)

    reply.wait_after(0, wake)
    reply.wait_end(wake)
    reply.stop_waiting(wake)
    reply.stop_waiting(wake)
    reply.push(piece(0, last=True))
    assert woken == []


def test_what_came_before_an_error_can_be_read() -> None:
    reply = Reply("r")
    reply.push(piece(0))
    reply.push(error_output("r", FinishReason.ERROR, "engine_step", "it broke"))
    assert reply.at(0) == piece(0)
    with pytest.raises(RequestFailed, match=r"it broke \[engine_step\]") as caught:
        reply.at(1)
    assert caught.value.error_code == "engine_step"
    with pytest.raises(RequestFailed):
        reply.at(5)
    with pytest.raises(RequestFailed):
        reply.result()


def test_a_cancelled_request_says_so() -> None:
    reply = Reply("r")
    reply.push(error_output("r", FinishReason.CANCELLED, "cancelled", "enough"))
    with pytest.raises(RequestCancelled, match="enough"):
        reply.result()


def test_a_dropped_reply_has_only_its_end_and_wakes_who_waits() -> None:
    reply = Reply("r")
    woken: list[str] = []
    reply.push(piece(0))
    reply.wait_after(1, lambda: woken.append("next"))
    reply.wait_end(lambda: woken.append("end"))
    reply.drop(error_output("r", FinishReason.EXPIRED, "expired", "too late"))
    assert sorted(woken) == ["end", "next"]
    for position in (0, 1, 7):
        with pytest.raises(RequestExpired, match="too late"):
            reply.at(position)
    assert not reply.push(piece(1))


def test_a_finished_reply_can_be_dropped_too() -> None:
    reply = Reply("r")
    reply.push(piece(0, last=True))
    reply.drop(error_output("r", FinishReason.EXPIRED, "expired", "too late"))
    with pytest.raises(RequestExpired):
        reply.result()
