from __future__ import annotations

import pytest

from inferq.cluster.keys import stream_of
from inferq.cluster.topic import Fenced, Group, Outcome, Settle, Topic
from tests.cluster.support import ORIGIN, PREFIX, Member, Server, another, item, settings_of, submit


def stream(number: int) -> str:
    return f"{PREFIX}out:inferq.{number:x}.1:0"


def test_outputs_and_ends_are_written_in_one_step(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "a", "b")
    node.take()
    server.xadd(stream(1), {"": ""})
    pubsub = server.pubsub()
    pubsub.subscribe("result")
    assert pubsub.get_message(timeout=60)
    settles = [Settle(node.claims["a"].claim, "a")]
    group = Group(stream(1), b"\x80outputs", settles, [("result", b"done", 30)])
    assert topic.emit(node.name, node.inc, [group]) == [Outcome.DONE]
    assert server.xlen(stream(1)) == 2
    assert server.get("result") == "done"
    assert 0 < server.ttl("result") <= 30
    assert pubsub.get_message(timeout=60)["data"] == "done"
    pubsub.close()
    assert server.hkeys(f"{PREFIX}claims:{node.inc}") == [str(node.claims["b"].claim)]
    assert topic.cancel("a") == "unknown"


def test_each_of_200_groups_has_its_own_outcome(port: int, server: Server) -> None:
    with another(settings_of(port, cluster={"max_stream_entries": 10})) as topic:
        node = Member(topic, "n")
        names = [f"r{i}" for i in range(600)]
        submit(topic, *names)
        while node.take():
            pass
        for i in range(200):
            if i % 3 != 1:
                for _ in range(10 if i % 3 == 2 else 1):
                    server.xadd(stream(i), {"": ""})
        groups = [
            Group(
                stream(i), b"o", [Settle(node.claims[name].claim, name) for name in names[i::200]]
            )
            for i in range(200)
        ]
        expected = [(Outcome.DONE, Outcome.GONE, Outcome.FULL)[i % 3] for i in range(200)]
        assert topic.emit(node.name, node.inc, groups) == expected
        assert server.hlen(f"{PREFIX}claims:{node.inc}") == 3 * expected.count(Outcome.FULL)
        assert not server.exists(stream(1))


def test_ten_thousand_ends_in_one_group(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, *(f"r{i}" for i in range(10_000)))
    while node.take():
        pass
    node.settle(*list(node.claims))
    assert not server.exists(f"{PREFIX}claims:{node.inc}")


def test_nothing_is_written_without_a_lease(topic: Topic, server: Server) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    server.xadd(stream(1), {"": ""})
    node.lapse(server)
    topic.beat("o", other.inc)
    with pytest.raises(Fenced):
        topic.emit(node.name, node.inc, [Group(stream(1), b"late", [], [("result", b"late", 30)])])
    assert server.xlen(stream(1)) == 1
    assert not server.exists("result")


def test_an_end_that_is_repeated_does_not_end_the_next_request_with_the_id(
    topic: Topic, server: Server
) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    submit(topic, "a")
    node.take()
    group = Group("", b"", [Settle(node.claims["a"].claim, "a")])
    topic.emit(node.name, node.inc, [group])
    topic.submit(ORIGIN, "another call", [item("a")])
    assert topic.emit(node.name, node.inc, [group]) == [Outcome.DONE]
    assert other.take() == ["a"]
    assert topic.emit(node.name, node.inc, [group]) == [Outcome.DONE]
    assert topic.cancel("a") == "running"


def test_a_stream_s_name_is_that_of_the_origin(topic: Topic) -> None:
    assert stream_of(PREFIX, "inferq.1.1", "anything") == stream(1)
