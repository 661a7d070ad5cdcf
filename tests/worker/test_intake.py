from __future__ import annotations

from typing import Any

import pytest

from inferq.worker import intake as intake_module
from tests.worker.fake_engine import PASS, STOP, TAKE, FakeEngine, look, make, sized


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(intake_module, "time", fake)
    return fake


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def test_what_fits_is_taken_and_counted(engine: FakeEngine) -> None:
    intake = make(engine)
    assert look(intake, sized("a", 50), sized("b", 50), sized("c", 1)) == [TAKE, TAKE, PASS]
    assert look(intake, sized("c", 1)) == [PASS]
    intake.released("a")
    assert look(intake, sized("c", 1)) == [TAKE]


def test_small_ones_pass_a_big_one_for_a_while_and_then_room_is_kept(
    engine: FakeEngine, clock: Clock
) -> None:
    intake = make(engine, pass_by_s=2.0)
    engine.free_blocks = 5
    big = sized("big", 80)
    assert look(intake, big, sized("a", 10)) == [PASS, TAKE]
    intake.released("a")
    clock.now += 1.9
    assert look(intake, big, sized("b", 10)) == [PASS, TAKE]
    intake.released("b")
    clock.now += 0.2
    assert look(intake, big, sized("c", 10)) == [PASS, PASS]
    clock.now += 1000
    assert look(intake, big, sized("c", 10)) == [PASS, PASS]
    engine.free_blocks = 10
    assert look(intake, big, sized("c", 10)) == [TAKE, TAKE]


def test_the_time_starts_anew_for_the_next_that_does_not_fit(
    engine: FakeEngine, clock: Clock
) -> None:
    intake = make(engine, pass_by_s=2.0)
    engine.free_blocks = 5
    look(intake, sized("big", 80))
    clock.now += 5
    assert look(intake, sized("other", 80), sized("a", 10)) == [PASS, TAKE]


def test_none_may_pass_when_no_time_is_given(engine: FakeEngine) -> None:
    engine.free_blocks = 5
    assert look(make(engine, pass_by_s=0), sized("big", 80), sized("a", 10)) == [PASS, PASS]


@pytest.mark.parametrize("pass_by_s", [0, 1000])
def test_what_never_fits_is_taken_at_once(engine: FakeEngine, pass_by_s: float) -> None:
    intake = make(engine, pass_by_s=pass_by_s)
    engine.free_blocks = 0
    assert look(intake, sized("a", 10), sized("huge", 95), sized("b", 10)) == [PASS, TAKE, PASS]
    assert len(intake.claims) == 0


def test_a_look_goes_no_further_than_the_lookahead(engine: FakeEngine) -> None:
    engine.free_blocks = 0
    verdicts = look(make(engine, lookahead=3), *(sized(str(n), 10) for n in range(5)))
    assert verdicts[:4] == [PASS, PASS, PASS, STOP]


def test_no_more_is_looked_at_when_the_node_holds_as_many_as_it_may(engine: FakeEngine) -> None:
    intake = make(engine, max_claims=1)
    look(intake, sized("a", 10))
    assert intake.open() is None
    intake.released("a")
    assert intake.open() is not None


@pytest.mark.parametrize("how", ["released", "handed", "prefilled"])
def test_all_room_that_becomes_free_after_a_look_wakes_once(engine: FakeEngine, how: str) -> None:
    intake = make(engine)
    wakes: list[str] = []
    intake.connect(lambda: wakes.append("look"), lambda wake: wake())
    look(intake, sized("a", 10), sized("b", 10))
    assert wakes == []
    getattr(intake, how)("a")
    getattr(intake, how)("b")
    assert wakes == ["look"]
    look(intake)
    getattr(intake, how)("b")
    assert wakes == ["look", "look"]


def test_the_wake_up_is_left_to_who_knows_when(engine: FakeEngine) -> None:
    intake = make(engine)
    wakes: list[str] = []
    later: list[Any] = []
    intake.connect(lambda: wakes.append("look"), later.append)
    look(intake, sized("a", 10))
    intake.released("a")
    assert wakes == []
    later.pop()()
    assert wakes == ["look"]
