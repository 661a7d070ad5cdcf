"""A claim goes on in the other phase: the step between prefill and decode."""

from __future__ import annotations

import pytest

from inferq.cluster.topic import Hop, Topic
from tests.cluster.phased import (
    DECODE,
    PREFILL,
    Phased,
    message_of,
    next_millisecond,
)
from tests.cluster.support import (
    PREFIX,
    Server,
    body_of,
    ends,
    letters,
    listen,
    submit,
)


@pytest.fixture
def topic(split_topic: Topic) -> Topic:
    return split_topic


def test_a_claim_ends_where_the_other_phase_begins(topic: Topic, server: Server) -> None:
    node, next_node = Phased(topic, "p", PREFILL), Phased(topic, "d", DECODE)
    submit(topic, "a", "b")
    assert node.take() == ["a", "b"]
    assert next_node.take() == []
    assert node.hop("a") == ""
    assert node.take() == []
    [taken] = next_node.look().taken
    assert (body_of(taken.raw), taken.queue, taken.attempt, taken.again) == ("a", DECODE, 0, False)
    assert (taken.prompt_tokens, taken.max_tokens) == (10, 5)
    next_node.settle("a")
    assert server.hkeys(f"{PREFIX}claims:{node.inc}") == [str(node.claims["b"].claim)]
    assert not server.exists(f"{PREFIX}claims:{next_node.inc}")


def test_deadline_priority_and_id_go_along(topic: Topic) -> None:
    node, next_node = Phased(topic, "p", PREFILL), Phased(topic, "d", DECODE)
    submit(topic, "late", step=3, ttl_s=50)
    submit(topic, "soon", step=1, ttl_s=70)
    taken = {body_of(row.raw): row for row in node.look().taken}
    node.hop("late")
    node.hop("soon")
    again = {body_of(row.raw): row for row in next_node.look().taken}
    assert list(again) == ["soon", "late"]
    for name, before in taken.items():
        after = again[name]
        assert after.request_id == before.request_id == name
        assert after.deadline_ms == before.deadline_ms
        assert after.submitted_ms == before.submitted_ms


def test_a_repeated_hop_does_nothing(topic: Topic) -> None:
    node, next_node = Phased(topic, "p", PREFILL), Phased(topic, "d", DECODE)
    submit(topic, "a")
    node.take()
    hop = Hop(node.claims["a"].claim, DECODE, message_of("a"), 10, 5)
    assert topic.hop("p", node.inc, [hop]) == [("", 0)]
    assert topic.hop("p", node.inc, [hop]) == [None]
    assert next_node.take() == ["a"]
    assert next_node.take() == []


def test_a_cancelled_request_goes_nowhere(topic: Topic, server: Server) -> None:
    node, next_node = Phased(topic, "p", PREFILL), Phased(topic, "d", DECODE)
    submit(topic, "a")
    node.take()
    topic.cancel("a")
    assert node.hop("a") is None
    assert next_node.take() == []
    submit(topic, "a")  # the id is free
    assert letters(server) == []


def test_a_request_whose_origin_is_gone_goes_nowhere(topic: Topic, server: Server) -> None:
    node, next_node = Phased(topic, "p", PREFILL), Phased(topic, "d", DECODE)
    submit(topic, "a", "b")
    node.take()
    server.xadd(f"{PREFIX}out:here", {"new": ""})
    assert node.hop("a", stream=f"{PREFIX}out:gone") is None
    assert node.hop("b", stream=f"{PREFIX}out:here") == ""
    assert next_node.take() == ["b"]


def test_a_prefilled_request_of_a_lost_node_is_taken_by_another(
    topic: Topic, server: Server
) -> None:
    node, first, second = (
        Phased(topic, "p", PREFILL),
        Phased(topic, "d1", DECODE),
        Phased(topic, "d2", DECODE),
    )
    submit(topic, "a")
    node.take()
    node.hop("a")
    assert first.take() == ["a"]
    first.lapse(server)
    topic.beat("d2", second.inc)
    [taken] = second.look().taken
    assert (taken.request_id, taken.attempt, taken.queue) == ("a", 1, DECODE)
    assert node.take() == []


def test_it_can_go_back_to_be_prefilled_again_as_its_next_attempt(
    topic: Topic, server: Server, port: int
) -> None:
    listen(server, "a")
    node, next_node = Phased(topic, "p", PREFILL), Phased(topic, "d", DECODE)
    submit(topic, "a")
    for attempt in range(5):
        [taken] = node.look().taken
        assert taken.attempt == attempt
        node.hop("a")
        next_node.take()
        assert next_node.hop("a", base=PREFILL, again=True) == ""
    [taken] = node.look().taken
    node.hop("a")
    next_node.take()
    assert next_node.hop("a", base=PREFILL, again=True) is None
    assert letters(server) == [("a", "attempts")]
    assert [end[2:4] for end in ends(port, "a")] == [["error", "attempts"]]


def test_a_mixed_node_looks_first_where_the_wait_is_longest(topic: Topic, server: Server) -> None:
    node = Phased(topic, "p", PREFILL)
    submit(topic, "a")
    node.take()
    node.hop("a")
    next_millisecond(server)
    submit(topic, "b")
    mixed = Phased(topic, "m", PREFILL, DECODE)
    assert mixed.take(slots=1) == ["a"]
    assert mixed.take(slots=1) == ["b"]
    assert {name: taken.queue for name, taken in mixed.claims.items()} == {
        "a": DECODE,
        "b": PREFILL,
    }


def test_a_prefilled_request_needs_blocks_and_no_room_for_a_prefill(topic: Topic) -> None:
    node, other = Phased(topic, "p", PREFILL), Phased(topic, "d", DECODE)
    submit(topic, "a", prompt=10)
    node.take()
    node.hop("a")
    assert other.look(blocks=9, block_size=1, reserved=0).blocked == "a"
    assert other.take(blocks=10, block_size=1, reserved=0, tokens=0, prefills=0) == ["a"]


def test_what_is_handed_off_needs_no_room_for_its_answer(topic: Topic) -> None:
    node = Phased(topic, "p", PREFILL)
    Phased(topic, "large", PREFILL, DECODE)
    submit(topic, "a", prompt=10, answer=1000)
    assert node.take(longest=11) == []
    assert node.take(longest=11, hands_off=True) == ["a"]
