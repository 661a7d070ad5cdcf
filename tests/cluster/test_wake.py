"""Who is idle is woken when there is something to do, and by nobody else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from inferq.cluster.keys import bell_key, staged_key
from inferq.cluster.topic import Topic
from tests.cluster.support import (
    BASE,
    PREFIX,
    Member,
    Server,
    another,
    push,
    settings_of,
    submit,
    waiting,
)
from tests.support import LONG_S, wait_until

LOOK = ['["look"]']


class Listener:
    """Waits for a message in the shared queue, as an idle node does."""

    def __init__(self, port: int, node: Member) -> None:
        self._client = redis.Redis(port=port)
        self._pool = ThreadPoolExecutor(1)
        self._id = self._client.client_id()
        staged = staged_key(PREFIX, node.inc)
        self.handed = self._pool.submit(
            self._client.blmove, BASE, staged, int(LONG_S), "RIGHT", "RIGHT"
        )
        with redis.Redis(port=port) as other:
            wait_until(lambda: self._is_blocked(other))

    def _is_blocked(self, other: Server) -> bool:
        clients = other.client_list()
        return any(c["id"] == str(self._id) and "b" in c["flags"] for c in clients)

    def close(self) -> None:
        """Stop waiting."""
        if not self.handed.done():
            with redis.Redis(port=self._client.connection_pool.connection_kwargs["port"]) as other:
                other.client_unblock(self._id)
        self.handed.result(LONG_S)
        self._pool.shutdown()
        self._client.close()


def crowd(topic: Topic, count: int) -> list[Member]:
    """Idle nodes that found the shared queue empty, in the order in which they went idle."""
    nodes = [Member(topic, f"n{i}") for i in range(count)]
    for node in nodes:
        look = node.look()
        assert (look.parked, look.is_empty) == (True, True)
    return nodes


def rung(server: Server, nodes: list[Member]) -> list[str]:
    """Whose bell rang; it is silent afterwards."""
    return [node.name for node in nodes if node.bell(server)]


def test_the_names_of_what_a_node_waits_on() -> None:
    assert staged_key(PREFIX, "n#1") == "inferq:default:staged:n#1"
    assert bell_key(PREFIX, "n#1") == "inferq:default:bell:n#1"


@pytest.mark.parametrize("how", ["a client", "a stock producer", "recovery", "put back", "drain"])
def test_an_idle_node_is_handed_what_comes_into_the_first_list(
    topic: Topic, port: int, server: Server, how: str
) -> None:
    idle, other, third = Member(topic, "idle"), Member(topic, "other"), Member(topic, "third")
    if how in ("recovery", "put back"):
        submit(topic, "a")
        other.take()
    if how == "drain":
        submit(topic, "a", node="other")
    assert idle.look(blocks=0).is_empty
    listener = Listener(port, idle)
    _cause(how, topic, server, other, third)
    assert listener.handed.result(LONG_S)
    assert idle.take() == ["a"]
    listener.close()


def _cause(how: str, topic: Topic, server: Server, other: Member, third: Member) -> None:
    if how == "a client":
        submit(topic, "a")
    elif how == "a stock producer":
        push(server, "a")
    elif how == "recovery":
        other.lapse(server)
        topic.beat("third", third.inc)
    elif how == "put back":
        other.put_back("a")
    else:
        topic.set_state("other", other.inc, "draining")


def test_one_message_for_the_first_list_wakes_one_of_many_and_rings_nobody(
    topic: Topic, port: int, server: Server
) -> None:
    nodes = crowd(topic, 3)
    listeners = [Listener(port, node) for node in nodes]
    submit(topic, "a")
    listeners[0].handed.result(LONG_S)
    assert [listener.handed.done() for listener in listeners] == [True, False, False]
    assert rung(server, nodes) == []
    for listener in listeners:
        listener.close()


def test_a_less_urgent_message_rings_one_of_many(topic: Topic, server: Server) -> None:
    nodes = crowd(topic, 3)
    submit(topic, "a", step=3)
    assert rung(server, nodes) == ["n0"]
    assert nodes[0].take() == ["a"]
    assert rung(server, nodes) == []


def test_who_is_woken_wakes_the_next_while_work_is_left(topic: Topic, server: Server) -> None:
    nodes = crowd(topic, 3)
    submit(topic, "a", "b", "c", step=2)
    for i, name in enumerate("abc"):
        assert rung(server, nodes) == [f"n{i}"]
        assert nodes[i].take(slots=1) == [name]
    assert rung(server, nodes) == []


def test_what_the_woken_node_cannot_take_reaches_the_one_that_can(
    topic: Topic, server: Server
) -> None:
    nodes = crowd(topic, 4)
    submit(topic, "a", step=2, prompt=50)
    for i in range(3):
        assert rung(server, nodes) == [f"n{i}"]
        assert nodes[i].take(blocks=10) == []
    assert rung(server, nodes) == ["n3"]
    assert nodes[3].take(blocks=50) == ["a"]


def test_nodes_that_cannot_take_what_is_left_do_not_wake_each_other_for_ever(
    topic: Topic, server: Server
) -> None:
    nodes = crowd(topic, 3)
    submit(topic, "a", step=2, prompt=50)
    rings = 0
    while names := rung(server, nodes):
        rings += len(names)
        for node in nodes:
            if node.name in names:
                assert node.take(blocks=10) == []
    assert rings == 3


def test_new_work_behind_what_does_not_fit_wakes_nodes_that_can_reach_it(
    port: int, server: Server
) -> None:
    with another(settings_of(port, admission={"lookahead": 2})) as topic:
        node = Member(topic, "n")
        submit(topic, "big", prompt=50)
        assert node.take(blocks=10) == []
        submit(topic, "a", prompt=50)
        assert node.bell(server) == LOOK
        assert node.take(blocks=10) == []
        submit(topic, "too far", prompt=5)
        assert node.bell(server) == []
        submit(topic, "far, but of low priority", prompt=5, step=2)
        assert node.bell(server) == []


def test_a_node_that_took_something_and_has_room_left_is_woken_too(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n")
    submit(topic, "a")
    look = node.look()
    assert (len(look.taken), look.parked, look.is_empty, look.more) == (1, True, True, False)
    submit(topic, "b", step=2)
    assert node.bell(server) == LOOK


def test_a_node_without_room_is_not_woken(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "a")
    assert not node.look(slots=1).parked
    submit(topic, "b", step=2)
    assert node.bell(server) == []


def test_a_message_handed_to_a_node_without_room_reaches_another(
    topic: Topic, server: Server
) -> None:
    full, idle = Member(topic, "full"), Member(topic, "idle")
    submit(topic, "blocked", prompt=50, step=2)
    assert idle.look(blocks=10).parked
    submit(topic, "a")
    idle.bell(server)
    assert idle.look(blocks=1).parked
    server.lmove(BASE, f"{PREFIX}staged:{full.inc}", "RIGHT", "RIGHT")
    assert full.take(take=False) == []
    assert idle.bell(server) == LOOK
    assert idle.take(blocks=10) == ["a"]


@pytest.mark.parametrize("how", ["recovery", "put back", "drain"])
def test_what_comes_back_behind_what_waits_wakes_a_node(
    topic: Topic, server: Server, how: str
) -> None:
    idle, other, third = Member(topic, "idle"), Member(topic, "other"), Member(topic, "third")
    if how == "drain":
        submit(topic, "a", node="other")
    else:
        submit(topic, "a")
        other.take(slots=1)
    submit(topic, "big", prompt=50)
    assert idle.look(blocks=5).parked
    idle.bell(server)
    _cause(how, topic, server, other, third)
    assert idle.bell(server) == LOOK
    assert idle.take(blocks=10) == ["a"]


def test_what_a_node_forwards_because_it_is_too_long_wakes_another(
    topic: Topic, server: Server
) -> None:
    [large] = crowd(topic, 1)
    small = Member(topic, "small", longest=100)
    submit(topic, "a", prompt=500, node="small", step=2)
    assert large.bell(server) == []
    assert small.take() == []
    assert large.bell(server) == LOOK
    assert large.take() == ["a"]


def test_a_node_looks_again_for_the_slots_of_what_was_dropped(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "a", "b")
    topic.cancel("a")
    look = node.look(slots=1)
    assert (look.taken, look.more) == ((), True)
    assert node.take(slots=1) == ["b"]


def test_a_node_that_takes_much_beside_a_queue_of_its_own_wakes_a_thief(
    topic: Topic, server: Server
) -> None:
    idle, busy = Member(topic, "idle"), Member(topic, "busy")
    submit(topic, "own", prompt=50, node="busy")
    submit(topic, "a", "b", "c")
    assert idle.look(blocks=0).parked
    assert busy.take(blocks=30) == ["a", "b", "c"]
    assert idle.bell(server) == LOOK
    assert idle.take() == ["own"]


def test_a_dead_node_s_turn_goes_to_the_next(topic: Topic, server: Server) -> None:
    nodes = crowd(topic, 2)
    server.zrem(f"{PREFIX}leases", nodes[0].inc)
    submit(topic, "a", step=2)
    assert rung(server, nodes) == ["n1"]


def test_a_node_with_too_much_to_do_wakes_a_thief(port: int, server: Server) -> None:
    with another(settings_of(port, scheduler_min_load_score=2)) as topic:
        [idle] = crowd(topic, 1)
        busy = Member(topic, "busy")
        submit(topic, "a", "b", node="busy")
        assert idle.bell(server) == []
        submit(topic, "c", node="busy")
        assert idle.bell(server) == LOOK
        assert idle.take() == ["a"]
        assert waiting(server, f"{BASE}.{busy.name}") == ["b", "c"]


def test_a_bell_that_nobody_reads_is_bounded_and_goes(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, *(f"r{i}" for i in range(1100)))
    while node.take():
        pass
    for i in range(1100):
        topic.cancel(f"r{i}")
    assert server.llen(bell_key(PREFIX, node.inc)) == 1000
    assert 0 < server.ttl(bell_key(PREFIX, node.inc)) <= 60
