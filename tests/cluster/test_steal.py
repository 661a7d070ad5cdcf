from __future__ import annotations

import binascii

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from inferq.cluster.topic import Topic
from tests.cluster.support import (
    BASE,
    LOADS,
    PREFIX,
    Member,
    Server,
    another,
    push,
    settings_of,
    submit,
    waiting,
)


@pytest.mark.parametrize(
    ("waits", "claimed", "stolen"), [(3, 0, 0), (4, 0, 1), (5, 0, 1), (9, 0, 3), (10, 2, 4)]
)
def test_an_idle_node_steals_half_of_what_another_has_too_many(
    topic: Topic, server: Server, waits: int, claimed: int, stolen: int
) -> None:
    busy, thief = Member(topic, "busy"), Member(topic, "thief")
    for i in range(claimed):
        submit(topic, f"c{i}", node="busy")
    busy.take()
    names = [f"r{i}" for i in range(waits)]
    submit(topic, *names, node="busy")
    look = thief.look()
    assert [taken.request_id for taken in look.taken] == names[:stolen]
    assert {taken.source for taken in look.taken} <= {"busy"}
    assert waiting(server, f"{BASE}.busy") == names[stolen:]
    assert int(server.hget(f"{PREFIX}stolen", "busy") or 0) == stolen


def test_a_node_that_has_as_much_to_do_does_not_steal(topic: Topic, server: Server) -> None:
    busy, other = Member(topic, "busy"), Member(topic, "other")
    submit(topic, *(f"o{i}" for i in range(5)))
    other.take()
    submit(topic, *(f"r{i}" for i in range(6)), node="busy")
    assert other.take() == []
    other.settle("o0")
    assert other.take() == ["r0"]
    assert busy.take() == ["r1", "r2", "r3", "r4", "r5"]


def test_the_most_loaded_node_is_stolen_from_first(topic: Topic) -> None:
    for name, count in [("a", 4), ("b", 9), ("c", 6)]:
        Member(topic, name)
        submit(topic, *(f"{name}{i}" for i in range(count)), node=name)
    thief = Member(topic, "thief")
    assert thief.take(slots=1) == ["b0"]


def test_what_was_stolen_comes_back_to_the_shared_queue(topic: Topic, server: Server) -> None:
    Member(topic, "busy")
    thief = Member(topic, "thief")
    submit(topic, *(f"r{i}" for i in range(5)), node="busy", step=2)
    thief.take()
    thief.put_back("r0")
    assert waiting(server, step=2) == ["r0"]


def test_what_waits_too_long_is_stolen_whatever_the_load(port: int, server: Server) -> None:
    with another(settings_of(port, cluster={"steal_after_s": 0})) as topic:
        node, thief = Member(topic, "stuck"), Member(topic, "thief")
        submit(topic, "a", "b", node="stuck")
        assert thief.take() == ["a"]
        thief.settle("a")
        assert thief.take() == ["b"]
        push(server, "stock", queue=f"{BASE}.stuck")
        topic.beat("stuck", node.inc)
        assert thief.take() == ["stock"]


def test_a_stuck_node_is_found_among_many_with_more_to_do(port: int, server: Server) -> None:
    with another(settings_of(port, scheduler_min_load_score=100)) as topic:
        for i in range(12):
            Member(topic, f"n{i}")
            submit(topic, *(f"r{i}.{k}" for k in range(20 - i)), node=f"n{i}")
        [raw] = server.lrange(f"{BASE}.n7", -1, -1)
        old = raw.replace(raw.split(", ")[4], "1000000000000", 1)
        server.lset(f"{BASE}.n7", -1, old)
        server.delete(f"{PREFIX}req:r7.0")
        thief = Member(topic, "thief")
        looks = 0
        while not (taken := thief.take()):
            looks += 1
            assert looks < 1000
        assert taken == ["r7.0"]


def test_a_thief_passes_what_does_not_fit(topic: Topic, server: Server) -> None:
    Member(topic, "busy")
    submit(topic, "big", prompt=50, node="busy")
    submit(topic, "a", "b", "c", node="busy")
    assert Member(topic, "thief").take(blocks=10) == ["a"]
    assert waiting(server, f"{BASE}.busy") == ["big", "b", "c"]


@examples(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=8, unique=True),
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=3),
)
def test_changing_the_number_of_shards_moves_rows_and_loses_none(
    topic: Topic, server: Server, names: list[str], counts: list[int]
) -> None:
    server.flushall()
    for i, name in enumerate(names):
        Member(topic, name)
        submit(topic, f"r{i}", node=name)
    for count in counts:
        topic.set_shards(count)
        rows = {
            (name, shard)
            for shard in range(count)
            for name in server.zrange(f"{LOADS}{shard}", 0, -1)
        }
        assert rows == {(name, binascii.crc_hqx(name.encode(), 0) % count) for name in names}
        assert len(server.keys(f"{LOADS}*")) <= count
    thief = Member(topic, "the thief")
    for name in names:
        submit(topic, *(f"{name} {i}" for i in range(4)), node=name)
    for _ in names:
        [stolen] = thief.take(slots=1)
        thief.settle(stolen)
