"""Both halves of a request run at once: each hears of the other's end."""

from __future__ import annotations

import json

import pytest

from inferq.cluster.keys import quoted
from inferq.cluster.topic import Group, Return, Settle, Topic
from tests.cluster.phased import (
    DECODE,
    PREFILL,
    Phased,
)
from tests.cluster.support import (
    PREFIX,
    Server,
    body_of,
    ends,
    listen,
    submit,
)


@pytest.fixture
def topic(split_topic: Topic) -> Topic:
    return split_topic


class TestPairs:
    """Both halves of a request run at once."""

    def test_a_cancel_reaches_both_halves(self, topic: Topic, server: Server) -> None:
        node, other = self.pair(topic)
        assert other.take() == ["a"]
        topic.cancel("a")
        for member, ring in ((node, "dismissed"), (other, "cancel")):
            assert [ring, "a"] in map(json.loads, member.bell(server))

    def test_a_failed_first_half_ends_the_request(
        self, topic: Topic, server: Server, port: int
    ) -> None:
        listen(server, "a")
        node, other = self.pair(topic)
        assert other.take() == ["a"]
        assert topic.fail_half("a", node.inc, "engine_error", "broke") == "running"
        assert ["cancel", "a"] in [json.loads(ring) for ring in other.bell(server)]
        [end] = ends(port, "a")
        assert end[2:] == ["error", "engine_error", "broke"]

    def test_a_first_half_that_is_not_part_of_it_any_more_fails_nothing(self, topic: Topic) -> None:
        node, other = self.pair(topic)
        other.take()
        other.hop("a", base=PREFILL, again=True)
        assert topic.fail_half("a", node.inc, "engine_error", "broke") == "unknown"

    def test_a_failed_second_half_ends_the_first(self, topic: Topic, server: Server) -> None:
        node, other = self.pair(topic)
        other.take()
        claim = other.claims["a"].claim
        settle = Settle(claim, quoted("a"), failed=True)
        topic.emit("d", other.inc, [Group("", b"", [settle])])
        assert ["dismissed", "a"] in [json.loads(ring) for ring in node.bell(server)]

    def test_a_first_half_that_is_done_hears_nothing(self, topic: Topic, server: Server) -> None:
        node, other = self.pair(topic)
        other.take()
        topic.emit("p", node.inc, [Group("", b"", [Settle(0, quoted("a"), held=True)])])
        topic.cancel("a")
        assert node.bell(server) == []
        assert not server.exists(f"{PREFIX}holding:{node.inc}")

    def test_a_lost_first_half_is_told_to_the_second(self, topic: Topic, server: Server) -> None:
        node, other = self.pair(topic)
        other.take()
        other.bell(server)
        node.lapse(server)
        topic.beat("d", other.inc)
        assert ["deserted", "a"] in [json.loads(ring) for ring in other.bell(server)]
        assert not server.exists(f"{PREFIX}holding:{node.inc}")

    def test_a_first_half_that_broke_is_told_to_the_second(
        self, topic: Topic, server: Server
    ) -> None:
        node, other = self.pair(topic)
        other.take()
        settle = Settle(0, quoted("a"), failed=True, held=True)
        topic.emit("p", node.inc, [Group("", b"", [settle])])
        assert ["deserted", "a"] in map(json.loads, other.bell(server))
        assert not server.exists(f"{PREFIX}holding:{node.inc}")

    def test_a_second_half_that_waits_learns_of_the_first_when_it_is_claimed(
        self, topic: Topic, server: Server
    ) -> None:
        node, other = self.pair(topic)
        node.lapse(server)
        topic.beat("d", other.inc)
        [taken] = other.look().taken
        assert (body_of(taken.raw), taken.attempt) == ("a", 1)

    def test_a_second_half_that_was_not_started_still_finds_the_first(
        self, topic: Topic, server: Server
    ) -> None:
        node, other = self.pair(topic)
        other.take()
        topic.put_back("d", other.inc, [Return(other.claims["a"].claim, started=False)])
        assert ["dismissed", "a"] not in map(json.loads, node.bell(server))
        [taken] = other.look().taken
        assert taken.attempt == 0

    def test_a_half_of_an_older_attempt_is_dismissed(self, topic: Topic, server: Server) -> None:
        node, other = self.pair(topic)
        other.take()
        assert other.hop("a", base=PREFILL, again=True) == ""
        assert ["dismissed", "a"] in map(json.loads, node.bell(server))

    def test_a_lost_second_half_is_told_to_the_first(self, topic: Topic, server: Server) -> None:
        node, other = self.pair(topic)
        other.take()
        other.lapse(server)
        topic.beat("p", node.inc)
        assert ["dismissed", "a"] in [json.loads(ring) for ring in node.bell(server)]
        [taken] = Phased(topic, "d2", DECODE).look().taken
        assert taken.attempt == 1

    def pair(self, topic: Topic) -> tuple[Phased, Phased]:
        """A request whose first half runs at the one and whose second waits for the other."""
        node, other = Phased(topic, "p", PREFILL), Phased(topic, "d", DECODE)
        submit(topic, "a")
        node.take()
        assert node.hop("a", holds=True) == ""
        return node, other
