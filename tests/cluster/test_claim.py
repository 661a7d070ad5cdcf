from __future__ import annotations

from inferq.cluster.keys import strip_envelope
from inferq.cluster.topic import Item, Return, Topic
from tests.cluster.support import (
    BASE,
    LOADS,
    ORIGIN,
    PREFIX,
    Member,
    Server,
    another,
    push,
    settings_of,
    submit,
    waiting,
)


def test_a_node_takes_the_most_urgent_first_and_in_order(topic: Topic, server: Server) -> None:
    submit(topic, "c", "d", step=2)
    submit(topic, "a", "b")
    node = Member(topic, "n")
    assert node.take(slots=3) == ["a", "b", "c"]
    assert node.take() == ["d"]


def test_what_is_taken_is_the_nodes_claim_in_the_same_step(topic: Topic, server: Server) -> None:
    submit(topic, "a", prompt=7, answer=3)
    node = Member(topic, "n")
    [taken] = node.look().taken
    assert (taken.attempt, taken.again, taken.source, taken.request_id) == (0, False, "", "a")
    assert (taken.prompt_tokens, taken.max_tokens) == (7, 3)
    assert strip_envelope(taken.raw) == b'{"body": "a"}'
    assert server.hkeys(f"{PREFIX}claims:{node.inc}") == [str(taken.claim)]
    assert waiting(server) == []


def test_its_own_queue_comes_first(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "shared")
    submit(topic, "own", node="n", step=3)
    assert node.take() == ["own", "shared"]
    assert not server.exists(LOADS + "0")


def test_no_more_than_a_batch_is_taken_in_one_look(port: int, server: Server) -> None:
    with another(settings_of(port, cluster={"claim_batch": 2})) as topic:
        submit(topic, "a", "b", "c")
        node = Member(topic, "n")
        look = node.look()
        assert len(look.taken) == 2
        assert look.more
        assert not look.parked
        assert node.take() == ["c"]


def test_smaller_ones_pass_what_does_not_fit_and_it_keeps_its_place(
    topic: Topic, server: Server
) -> None:
    submit(topic, "big", prompt=50)
    submit(topic, "a", "b", "c", prompt=4)
    node = Member(topic, "n")
    look = node.look(blocks=10)
    assert [taken.request_id for taken in look.taken] == ["a", "b"]
    assert look.blocked == "big"
    assert waiting(server) == ["big", "c"]


def test_room_is_kept_for_the_first_that_does_not_fit_and_by_one_node_only(
    topic: Topic, server: Server
) -> None:
    submit(topic, "big", prompt=50)
    submit(topic, "a", "b", "c", prompt=4)
    one, other = Member(topic, "one"), Member(topic, "other")
    assert one.take(blocks=10, reserve="big") == []
    assert other.take(blocks=5, reserve="big") == ["a"]
    assert one.take(blocks=60, reserve="big") == ["big", "b", "c"]


def test_a_request_that_only_a_larger_node_can_hold_does_not_keep_others_from_their_turn(
    topic: Topic, server: Server
) -> None:
    submit(topic, "huge", prompt=500)
    submit(topic, "big", prompt=90)
    submit(topic, "a", prompt=4)
    small = Member(topic, "small", longest=100)
    look = small.look(blocks=10, reserve="big")
    assert (look.taken, look.blocked) == ((), "big")


def test_only_so_many_are_looked_at_behind_what_does_not_fit(port: int, server: Server) -> None:
    with another(settings_of(port, admission={"lookahead": 3})) as topic:
        submit(topic, "b1", "b2", "b3", prompt=50)
        submit(topic, "a", prompt=1)
        assert Member(topic, "n").take(blocks=10) == []
        assert waiting(server) == ["b1", "b2", "b3", "a"]


def test_what_nobody_can_hold_is_taken_at_once_to_be_refused(topic: Topic, server: Server) -> None:
    submit(topic, "huge", prompt=500)
    node = Member(topic, "n", longest=100)
    assert node.take(blocks=0, largest=510) == []
    assert node.take(blocks=0, largest=509) == ["huge"]


def test_what_is_over_time_is_taken_at_once_whatever_its_size(topic: Topic, server: Server) -> None:
    submit(topic, "late", prompt=500, ttl_s=0)
    server.time()
    node = Member(topic, "n")
    while not (taken := node.take(blocks=0)):
        pass
    assert taken == ["late"]


def test_an_own_request_that_only_others_can_hold_goes_to_the_head_of_the_shared_queue(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n", longest=100)
    submit(topic, "old")
    submit(topic, "x", "y", prompt=500, node="n")
    submit(topic, "fits", prompt=5, node="n")
    look = node.look(slots=1)
    assert [taken.request_id for taken in look.taken] == ["fits"]
    assert waiting(server) == ["x", "y", "old"]
    assert node.take(slots=1) == ["old"]
    assert waiting(server) == ["x", "y"]
    assert Member(topic, "large").take() == ["x", "y"]


def test_messages_without_sizes_are_judged_by_their_length_and_then_by_what_was_measured(
    topic: Topic, server: Server
) -> None:
    push(server, "x" * 500)
    node = Member(topic, "n")
    assert node.take(blocks=50) == []
    [taken] = node.look(blocks=150).taken
    assert (taken.prompt_tokens, taken.request_id) == (0, "")
    topic.put_back("n", node.inc, [Return(taken.claim, False, 20, 30)])
    [taken] = node.look(blocks=20).taken
    assert (taken.prompt_tokens, taken.max_tokens, taken.attempt, taken.again) == (20, 30, 0, True)


def test_the_time_of_a_stock_message_runs_from_when_it_was_first_looked_at(
    port: int, server: Server
) -> None:
    with another(settings_of(port, scheduler_ttl=70)) as topic:
        push(server, "x" * 500)
        node = Member(topic, "n")
        assert node.take(blocks=1) == []
        before = topic.beat("n", node.inc).now_ms
        [taken] = node.look().taken
        assert taken.submitted_ms <= before
        assert taken.deadline_ms == taken.submitted_ms + 70_000


def test_put_back_returns_each_to_its_place(topic: Topic, server: Server) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    submit(topic, "a", "b", "c", "d", "e")
    assert node.take(slots=2) == ["a", "b"]
    assert other.take(slots=2) == ["c", "d"]
    other.put_back("d")
    node.put_back("a")
    other.put_back("c")
    node.put_back("b")
    assert waiting(server) == ["a", "b", "c", "d", "e"]


def test_what_was_passed_is_still_before_what_passed_it_and_came_back(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n")
    submit(topic, "big", prompt=50)
    submit(topic, "a", "b", prompt=4)
    assert node.take(blocks=10) == ["a", "b"]
    node.put_back("b", "a")
    assert waiting(server) == ["big", "a", "b"]


def test_the_shortest_go_first_but_waiting_makes_up_for_length(port: int, server: Server) -> None:
    cluster = {"order": "spt_ageing", "ageing_tokens_per_s": 1000}
    with another(settings_of(port, cluster=cluster)) as topic:
        submit(topic, "long", prompt=90_000)
        submit(topic, "mid", prompt=50_000)
        submit(topic, "short", prompt=10)
        node = Member(topic, "n")
        assert node.take(slots=1) == ["short"]
        assert waiting(server) == ["long", "mid"]
        [raw] = server.lrange(BASE, -1, -1)
        old = raw.replace(raw.split(", ")[4], "1000000000000", 1)
        server.lset(BASE, -1, old)
        server.delete(f"{PREFIX}req:long")
        assert node.take(slots=1) == ["long"]


def test_without_take_nothing_is_taken(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "own", node="n")
    submit(topic, "shared")
    look = node.look(take=False)
    assert (look.taken, look.parked, look.is_empty, look.more) == ((), False, False, False)


def test_what_it_was_handed_goes_back_to_its_place(topic: Topic, server: Server) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    submit(topic, "a", "b", "c", "d")
    assert other.take(slots=1) == ["a"]
    for _ in range(2):
        server.lmove(BASE, f"{PREFIX}staged:{node.inc}", "RIGHT", "RIGHT")
    other.put_back("a")
    node.look(take=False)
    assert waiting(server) == ["a", "b", "c", "d"]


def test_a_look_returns_no_more_than_some_megabytes(topic: Topic, server: Server) -> None:
    message = b'{"body": "' + b"x" * 9_000_000 + b'"}'
    topic.submit(ORIGIN, "t", [Item(message, f"r{n}", 1, 60, 1, 1) for n in range(6)])
    node = Member(topic, "n")
    look = node.look()
    assert [taken.request_id for taken in look.taken] == ["r0", "r1", "r2", "r3"]
    assert look.more
    assert [taken.request_id for taken in node.look().taken] == ["r4", "r5"]
