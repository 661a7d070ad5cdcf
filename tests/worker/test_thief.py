"""Idle nodes on one broker steal from loaded ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inferq.worker.thief import Thief
from tests.support import LONG_S, wait_until
from tests.worker.thief_harness import Nodes, full_name, queue_of


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.close()


def test_the_oldest_are_stolen_until_the_loads_are_even(nodes: Nodes) -> None:
    nodes.start_busy("owner")
    for number in range(1, 10):
        nodes.send("owner", number)
    thief = nodes.start("thief", slots=20)
    # Of a load of 10, 3 above the bound of 3; then of 7 against 3, 2; then they are even.
    assert thief.stage.wait_for(5) == [1, 2, 3, 4, 5]
    nodes.send("thief", 10)
    assert thief.stage.wait_for(6) == [1, 2, 3, 4, 5, 10]
    assert nodes.waiting("owner") == 4
    assert thief.stats()["inferq_stolen"] == 5


def test_an_idle_node_steals_as_soon_as_another_is_loaded(nodes: Nodes) -> None:
    nodes.start_busy("owner")
    thief = nodes.start("thief")
    nodes.send("owner", 1)
    nodes.send("owner", 2)
    nodes.send(None, 3)
    assert thief.stage.wait_for(1) == [3]
    thief.open()
    nodes.send("owner", 4)
    assert thief.stage.wait_for(2) == [3, 1]


def test_the_most_loaded_is_stolen_from_first(nodes: Nodes) -> None:
    for name in ("some", "most"):
        nodes.start_busy(name)
    for name, first, count in (("some", 10, 4), ("most", 20, 8)):
        for number in range(first, first + count):
            nodes.send(name, number)
    thief = nodes.start("thief", slots=2)
    assert thief.stage.wait_for(2) == [20, 21]


def test_a_node_whose_own_queue_is_not_empty_does_not_steal(nodes: Nodes) -> None:
    nodes.start_busy("owner")
    thief = nodes.start("thief", slots=8, blocks=10)
    nodes.send("thief", 1, prompt_tokens=60)
    thief.stage.wait_for(1)
    nodes.send("thief", 2, prompt_tokens=60)
    for number in range(10, 20):
        nodes.send("owner", number)
    for count, number in ((2, 3), (3, 4)):
        nodes.send("thief", number)
        thief.stage.wait_for(count)
    assert thief.stage.seen == [1, 3, 4]
    thief.open()
    assert thief.stage.wait_for(5)[3:5] == [2, 10]


def test_the_shared_queue_comes_before_theft(nodes: Nodes) -> None:
    nodes.start_busy("owner")
    for number in range(1, 11):
        nodes.send("owner", number)
    nodes.send(None, 99)
    thief = nodes.start("thief")
    thief.open()
    assert thief.stage.wait_for(2)[:2] == [99, 1]


def test_what_does_not_fit_the_thief_keeps_its_place(nodes: Nodes) -> None:
    owner = nodes.start_busy("owner")
    thief = nodes.start("thief", slots=8, blocks=10)
    nodes.send("thief", 100, prompt_tokens=60)
    thief.stage.wait_for(1)
    for number, prompt_tokens in ((1, 50), (2, 10), (3, 10), (4, 10)):
        nodes.send("owner", number, prompt_tokens=prompt_tokens)
    assert thief.stage.wait_for(3) == [100, 2, 3]
    owner.open()
    assert owner.stage.wait_for(3) == [0, 1, 4]


def test_what_only_others_can_hold_is_left_to_them(nodes: Nodes) -> None:
    owner = nodes.start_busy("owner")
    thief = nodes.start("thief", slots=8, blocks=5)
    for number, prompt_tokens in ((1, 80), (2, 10), (3, 10), (4, 10)):
        nodes.send("owner", number, prompt_tokens=prompt_tokens)
    assert thief.stage.wait_for(2) == [2, 3]
    owner.open()
    assert owner.stage.wait_for(3) == [0, 1, 4]


def test_the_first_in_line_of_a_stuck_owner_is_taken_after_a_while(nodes: Nodes) -> None:
    owner = nodes.start_busy("owner")
    thief = nodes.start("thief", cluster={"steal_after_s": 0.2})
    for number in (1, 2):
        nodes.send("owner", number)
    assert thief.stage.wait_for(1) == [1]
    thief.open()
    assert thief.stage.wait_for(2) == [1, 2]
    assert owner.stage.seen == [0]


def test_the_time_to_look_again_is_when_the_first_in_line_may_be_taken(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[float] = []
    look = Thief.look

    def noted(thief: Thief) -> float:
        answer = look(thief)
        answers.append(answer)
        return answer

    monkeypatch.setattr(Thief, "look", noted)
    nodes.start_busy("owner")
    nodes.send("owner", 1)
    thief = nodes.start("thief", cluster={"steal_after_s": 1})
    thief.stage.wait_for(1)
    assert any(0 < answer < 1 for answer in answers)


def test_the_queue_of_a_node_that_left_is_for_others(nodes: Nodes) -> None:
    owner, thief = nodes.start_busy("owner"), nodes.start("thief")
    for number in (1, 2):
        nodes.send("owner", number)
    owner.worker.stop()
    thief.open()
    assert sorted(thief.stage.wait_for(3)) == [0, 1, 2]
    wait_until(lambda: nodes.broker.claims() == 0)


def test_a_node_that_comes_back_has_its_queue_again(nodes: Nodes) -> None:
    thief = nodes.start("thief")
    nodes.start("owner").worker.stop()
    owner = nodes.start_busy("owner")
    for number in (1, 2):
        nodes.send("owner", number)
    owner.open()
    assert owner.stage.wait_for(3) == [0, 1, 2]
    assert thief.stage.seen == []


def test_a_node_that_is_to_consume_no_more_does_not_steal(nodes: Nodes) -> None:
    nodes.start_busy("owner")
    thief = nodes.start("thief")
    nodes.producer.control.cancel_consumer(
        queue_of("thief"), destination=[full_name("thief")], reply=True, limit=1, timeout=LONG_S
    )
    for number in range(1, 11):
        nodes.send("owner", number)
    other = nodes.start("other", slots=10)
    other.stage.wait_for(5)
    assert thief.stage.seen == []
