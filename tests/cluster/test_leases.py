from __future__ import annotations

from collections.abc import Callable

import pytest

from inferq.cluster.topic import Fenced, NameInUse, Topic
from inferq.settings import Settings
from tests.cluster.support import (
    BASE,
    LOADS,
    PREFIX,
    Member,
    Server,
    another,
    ends,
    letters,
    listen,
    push,
    settings_of,
    submit,
    waiting,
)


def test_a_name_is_in_use_until_its_lease_lapses(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    with pytest.raises(NameInUse) as caught:
        topic.register("n", "{}")
    assert 500 < caught.value.wait_s <= 600
    node.lapse(server)
    assert topic.register("n", "{}") != node.inc
    assert node.is_fenced()


def test_a_lost_node_s_claims_return_in_order_and_count_as_started(
    topic: Topic, server: Server
) -> None:
    lost, other = Member(topic, "lost"), Member(topic, "other")
    submit(topic, *"abcde")
    submit(topic, "urgent", step=2)
    assert lost.take(slots=1) == ["a"]
    assert other.take(slots=1) == ["b"]
    assert lost.take(slots=1) == ["c"]
    lost.lapse(server)
    assert topic.beat("other", other.inc).recovered == ((lost.inc, 2, 0),)
    assert waiting(server) == ["a", "c", "d", "e"]
    look = other.look()
    assert [(t.request_id, t.attempt, t.again) for t in look.taken][:3] == [
        ("a", 1, True),
        ("c", 1, True),
        ("d", 0, False),
    ]


def test_a_lost_node_s_queue_and_what_it_was_handed_go_to_all(topic: Topic, server: Server) -> None:
    lost, other = Member(topic, "lost"), Member(topic, "other")
    submit(topic, "handed", "shared")
    server.lmove(BASE, f"{PREFIX}staged:{lost.inc}", "RIGHT", "RIGHT")
    submit(topic, "own1", "own2", node="lost")
    submit(topic, "low", node="lost", step=3)
    lost.lapse(server)
    topic.beat("other", other.inc)
    assert waiting(server) == ["handed", "own1", "own2", "shared"]
    assert waiting(server, step=3) == ["low"]
    assert not server.exists(LOADS + "0")


def test_every_step_of_a_node_without_lease_is_refused(topic: Topic, server: Server) -> None:
    lost, other = Member(topic, "lost"), Member(topic, "other")
    submit(topic, "a")
    lost.take()
    lost.lapse(server)
    topic.beat("other", other.inc)
    steps: list[Callable[[], object]] = [
        lambda: topic.beat("lost", lost.inc),
        lambda: topic.set_state("lost", lost.inc, "draining"),
        lambda: topic.set_state("lost", lost.inc, "gone"),
        lost.look,
        lambda: lost.put_back("a"),
        lambda: topic.bury("lost", lost.inc, []),
        lambda: topic.adopt("lost", lost.inc, []),
        lambda: topic.emit("lost", lost.inc, []),
    ]
    for step in steps:
        with pytest.raises(Fenced):
            step()
    assert waiting(server) == ["a"]


def test_a_node_that_is_late_but_was_not_missed_goes_on(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "a")
    node.take()
    node.lapse(server)
    assert topic.beat("n", node.inc).recovered == ()
    node.settle("a")
    assert server.zscore(f"{PREFIX}leases", node.inc) > 1


def test_what_is_handed_to_a_node_after_its_end_goes_back(topic: Topic, server: Server) -> None:
    lost, other = Member(topic, "lost"), Member(topic, "other")
    lost.lapse(server)
    topic.beat("other", other.inc)
    submit(topic, "a", "b")
    server.lmove(BASE, f"{PREFIX}staged:{lost.inc}", "RIGHT", "RIGHT")
    assert topic.beat("other", other.inc).look
    assert waiting(server) == ["a", "b"]


def test_a_process_that_was_paused_for_very_long_gives_back_what_it_is_handed(
    topic: Topic, server: Server
) -> None:
    lost, other = Member(topic, "lost"), Member(topic, "other")
    lost.lapse(server)
    topic.beat("other", other.inc)
    server.delete(f"{PREFIX}graves")
    submit(topic, "a")
    server.lmove(BASE, f"{PREFIX}staged:{lost.inc}", "RIGHT", "RIGHT")
    with pytest.raises(Fenced):
        lost.look(take=False)
    assert waiting(server) == ["a"]


def test_leases_do_not_run_out_while_redis_is_away_but_are_extended_once_only(
    topic: Topic, server: Server
) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    topic.beat("n", node.inc)

    def be_away(minutes: int) -> None:
        server.decrby(f"{PREFIX}tick", minutes * 60_000)
        for inc, expiry in server.zrange(f"{PREFIX}leases", 0, -1, withscores=True):
            server.zadd(f"{PREFIX}leases", {inc: expiry - minutes * 60_000})

    be_away(20)
    assert topic.beat("n", node.inc).recovered == ()
    topic.beat("o", other.inc)
    be_away(20)
    assert topic.beat("n", node.inc).recovered == ()
    be_away(20)
    assert topic.beat("n", node.inc).recovered == ((other.inc, 0, 0),)


def test_a_request_that_was_started_too_often_is_dead_and_its_origin_told(
    port: int, server: Server
) -> None:
    with another(settings_of(port, cluster={"max_attempts": 2})) as topic:
        listen(server, "a")
        submit(topic, "a")
        node = Member(topic, "n")
        for attempt in (0, 1):
            assert [taken.attempt for taken in node.look().taken] == [attempt]
            node.put_back("a", started=True)
        assert node.take() == []
        assert letters(server) == [("a", "attempts")]
        [[request_id, told, reason, code, message]] = ends(port, "a")
        assert (request_id, told, reason, code) == ("a", 2, "error", "attempts")
        assert "2 times" in message
        assert topic.cancel("a") == "unknown"


def test_a_node_that_drains_gives_its_queue_to_all_and_keeps_its_claims(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n")
    submit(topic, "claimed")
    node.take()
    submit(topic, "shared")
    submit(topic, "own1", "own2", node="n")
    topic.set_state("n", node.inc, "draining")
    assert waiting(server) == ["own1", "own2", "shared"]
    node.settle("claimed")
    topic.set_state("n", node.inc, "gone")
    assert node.is_fenced()


def test_leaving_returns_what_is_still_claimed(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "a", "b")
    node.take()
    topic.set_state("n", node.inc, "gone")
    assert waiting(server) == ["a", "b"]


def test_what_stock_producers_send_to_nodes_that_left_goes_to_all(
    topic: Topic, server: Server
) -> None:
    alive = Member(topic, "alive")
    for i in range(10):
        topic.set_state(f"n{i}", Member(topic, f"n{i}").inc, "gone")
    push(server, "x", queue=f"{BASE}.n3")
    push(server, "y", queue=f"{BASE}.n9", step=2)
    looks = [topic.beat("alive", alive.inc).look for _ in range(3)]
    assert looks[-1]
    assert alive.take() == ["x", "y"]


def test_a_node_that_left_long_ago_is_forgotten(topic: Topic, server: Server) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    topic.set_state("n", node.inc, "gone")
    server.zadd(f"{PREFIX}seen", {"n": 1})
    push(server, "x", queue=f"{BASE}.n")
    assert topic.beat("o", other.inc).look
    for key in ("nodes", "states", "incs"):
        assert server.hkeys(f"{PREFIX}{key}") == ["o"]
    assert server.zrange(f"{PREFIX}gone", 0, -1) == []
    assert other.take() == ["x"]


def test_a_beat_says_whether_there_is_work(topic: Topic, server: Server) -> None:
    node = Member(topic, "n", longest=777)
    other = Member(topic, "o", longest=999)
    assert topic.beat("n", node.inc)[1:] == ((), False, 999)
    push(server, "x", queue=f"{BASE}.n", step=4)
    assert topic.beat("n", node.inc).look
    # What a stock producer sends to a node may be stolen once that has beaten.
    assert topic.beat("o", other.inc).look
    node.take()
    assert not topic.beat("o", other.inc).look
    push(server, "y", step=3)
    assert topic.beat("o", other.inc).look


def test_a_beat_renews_the_record(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    topic.beat("n", node.inc, '{"host": "new"}')
    topic.beat("n", node.inc)
    assert server.hget(f"{PREFIX}nodes", "n") == '{"host": "new"}'


def test_many_lost_nodes_are_recovered_by_some_beats(
    settings: Settings, topic: Topic, server: Server
) -> None:
    alive = Member(topic, "alive")
    lost = [Member(topic, f"n{i}") for i in range(10)]
    submit(topic, *(f"r{i}" for i in range(10)))
    for node in lost:
        node.take(slots=1)
        node.lapse(server)
    recovered = [len(topic.beat("alive", alive.inc).recovered) for _ in range(3)]
    assert sum(recovered) == 10
    assert waiting(server) == [f"r{i}" for i in range(10)]


def test_a_thousand_claims_return_in_order(topic: Topic, server: Server) -> None:
    lost, other = Member(topic, "lost"), Member(topic, "other")
    names = [f"r{i}" for i in range(5000)]
    submit(topic, *names)
    while lost.take():
        pass
    assert waiting(server) == []
    lost.lapse(server)
    assert topic.beat("other", other.inc).recovered == ((lost.inc, 5000, 0),)
    assert waiting(server) == names
