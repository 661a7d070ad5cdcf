from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from inferq.errors import DuplicateRequest, RequestCancelled, RequestExpired, UnknownRequest
from inferq.messages import Output, Request
from inferq.schedulers import ledger as ledger_module
from inferq.schedulers.ledger import Ledger


class Clock:
    """Both clocks that a ledger reads, moving together."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(ledger_module, "time", fake)
    return fake


def requests(ids: Iterable[str], deadline: float | None = None) -> list[Request]:
    end = deadline if deadline is not None else time.time() + 600
    return [Request.parse({"request_id": i, "prompt": "x", "deadline": end}) for i in ids]


def end(request_id: str) -> Output:
    return Output(request_id, finished=True, finish_reason="stop")


@pytest.mark.parametrize(("bound", "held"), [(2, "ab"), (3, "abc"), (0, "abc"), (-1, "abc")])
def test_as_many_are_held_as_the_bound_allows(bound: int, held: str) -> None:
    ledger = Ledger(bound)
    admitted = ledger.admit(requests("abc"))
    assert "".join(reply.request_id for reply in admitted.replies) == held
    assert "".join(request.request_id for request in admitted.rejected) == "abc"[len(held) :]
    assert len(ledger) == len(held)


def test_a_full_ledger_takes_more_when_an_end_was_read() -> None:
    ledger = Ledger(1)
    ledger.admit(requests("a"))
    assert ledger.admit(requests("b")).replies == []
    ledger.deliver(end("a"))
    assert ledger.unread == 1
    assert ledger.admit(requests("b")).replies == []
    ledger.forget("a")
    assert len(ledger.admit(requests("b")).replies) == 1


@pytest.mark.parametrize("ids", ["a", "ba", "bb"])
def test_with_a_duplicate_none_is_held(ids: str) -> None:
    ledger = Ledger(-1)
    ledger.admit(requests("a"))
    with pytest.raises(DuplicateRequest) as caught:
        ledger.admit(requests(ids))
    assert caught.value.request_id == ids[-1]
    assert len(ledger) == 1


def test_outputs_reach_the_reply_of_their_request_only() -> None:
    ledger = Ledger(-1)
    a, b = ledger.admit(requests("ab")).replies
    assert ledger.deliver(Output("a", token_ids=(1,)))
    assert a.at(0) is not None
    assert b.at(0) is None
    assert not ledger.deliver(Output("c"))
    assert ledger.find("a") is a


@pytest.mark.parametrize("how", ["find", "cancel"])
def test_what_is_not_held_is_unknown(how: str) -> None:
    ledger = Ledger(-1)
    with pytest.raises(UnknownRequest):
        ledger.find("a") if how == "find" else ledger.cancel("a", "why")
    ledger.forget("a")


def test_a_cancelled_request_ends_and_is_held_no_more() -> None:
    ledger = Ledger(-1)
    (reply,) = ledger.admit(requests("a")).replies
    assert ledger.cancel("a", "enough")
    with pytest.raises(RequestCancelled, match="enough"):
        reply.result()
    assert len(ledger) == 0
    assert not ledger.deliver(Output("a"))


def test_what_has_ended_cannot_be_cancelled() -> None:
    ledger = Ledger(-1)
    (reply,) = ledger.admit(requests("a")).replies
    ledger.deliver(end("a"))
    assert not ledger.cancel("a", "too late")
    assert reply.result().finish_reason == "stop"


def test_clearing_cancels_what_has_not_ended() -> None:
    ledger = Ledger(-1)
    a, b = ledger.admit(requests("ab")).replies
    ledger.deliver(end("a"))
    assert ledger.clear("closed") == ["b"]
    assert a.result().finish_reason == "stop"
    with pytest.raises(RequestCancelled, match="closed"):
        b.result()
    assert len(ledger) == 0
    assert ledger.next_deadline() is None


def test_a_request_expires_at_its_deadline(clock: Clock) -> None:
    ledger = Ledger(-1)
    late, early = ledger.admit([*requests("a", 1020), *requests("b", 1010)]).replies
    assert ledger.next_deadline() == 1010
    clock.now = 1009.9
    assert ledger.expire() == []
    clock.now = 1010
    assert ledger.expire() == ["b"]
    with pytest.raises(RequestExpired, match="before it ended"):
        early.result()
    assert late.end is None
    assert ledger.next_deadline() == 1020
    assert len(ledger) == 1


def test_an_answer_that_nobody_reads_expires_too(clock: Clock) -> None:
    ledger = Ledger(-1)
    (reply,) = ledger.admit(requests("a", 1010)).replies
    ledger.deliver(Output("a", token_ids=(1,)))
    ledger.deliver(end("a"))
    clock.now = 1011
    assert ledger.expire() == ["a"]
    with pytest.raises(RequestExpired, match="before its end was read"):
        reply.at(0)
    assert (len(ledger), ledger.unread) == (0, 0)


def test_a_deadline_in_the_past_is_over_at_once(clock: Clock) -> None:
    ledger = Ledger(-1)
    ledger.admit(requests("a", 900))
    assert ledger.expire() == ["a"]


def test_an_id_that_is_used_again_has_its_new_deadline(clock: Clock) -> None:
    ledger = Ledger(-1)
    ledger.admit(requests("a", 1010))
    ledger.forget("a")
    ledger.admit(requests("a", 1030))
    clock.now = 1020
    assert ledger.expire() == []
    clock.now = 1031
    assert ledger.expire() == ["a"]


def test_deadlines_of_requests_that_are_gone_do_not_pile_up(clock: Clock) -> None:
    ledger = Ledger(-1)
    ledger.admit(requests(["first"], 1999))
    for n in range(3000):
        ledger.admit(requests([str(n)], 1001))
        ledger.forget(str(n))
    assert len(ledger._deadlines) < 2000
    clock.now = 2000
    assert ledger.expire() == ["first"]


def test_deadlines_of_cancelled_requests_do_not_pile_up(clock: Clock) -> None:
    ledger = Ledger(-1)
    for n in range(3000):
        ledger.admit(requests([str(n)], 1001))
        ledger.cancel(str(n), "enough")
    assert len(ledger._deadlines) < 2000
