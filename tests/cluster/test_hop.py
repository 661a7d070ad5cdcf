"""A claim goes on in the other phase: the step between prefill and decode."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from inferq.cluster.keys import quoted
from inferq.cluster.topic import Group, Hop, Look, Return, Settle, Target, Topic
from tests.cluster.support import (
    LARGEST,
    ORIGIN,
    PLENTY,
    PREFIX,
    Member,
    Server,
    another,
    body_of,
    ends,
    item,
    letters,
    listen,
    settings_of,
    submit,
)

PREFILL, DECODE = "default.prefill", "default.decode"
ALL_TOKENS = Target(("d1", "d2"), (1.0, 1.0), (0.0, 0.0))


@pytest.fixture
def topic(server: Server, port: int) -> Iterator[Topic]:
    """A topic in which the work of nodes is counted."""
    with another(settings_of(port, scheduler_name="splitwise")) as made:
        yield made


class Phased(Member):
    """A node of one phase."""

    def __init__(self, topic: Topic, name: str, *serves: str) -> None:
        self.serves = serves
        super().__init__(topic, name)

    def join(self) -> None:
        """Register and be ready for its phases."""
        super().join()
        self.serve(*self.serves)

    def serve(self, *serves: str) -> None:
        """Change its phases."""
        self.serves = serves
        self.topic.set_state(self.name, self.inc, "ready", dict.fromkeys(serves, LARGEST))

    def look(self, **room: object) -> Look:
        """Look at the queues of its phases."""
        look = self.topic.claim(
            self.name,
            self.inc,
            PLENTY._replace(**room),  # type: ignore[arg-type]
            reserve="",
            largest=LARGEST,
            serves=self.serves,
        )
        self.claims.update({body_of(taken.raw): taken for taken in look.taken})
        return look

    def take(self, **room: object) -> list[str]:
        """Who was taken in one look."""
        return [body_of(taken.raw) for taken in self.look(**room).taken]

    def hop(
        self, name: str, *, base: str = DECODE, target: Target | None = None, **how: bool | str
    ) -> str | None:
        """Pass a claim on; where it went."""
        claim = self.claims.pop(name).claim
        hop = Hop(claim, base, message_of(name), 10, 5, target=target, **how)  # type: ignore[arg-type]
        [placed] = self.topic.hop(self.name, self.inc, [hop])
        return placed and placed.node


def message_of(name: str) -> bytes:
    """A message as another node reads it."""
    return item(name).message


def next_millisecond(server: Server) -> None:
    """Wait until the server's clock shows another time."""

    def now() -> int:
        seconds, micros = server.time()
        return int(seconds * 1000 + micros // 1000)

    before = now()
    while now() == before:
        pass


def work(server: Server, base: str) -> dict[str, int]:
    """What nodes have to do, by the fields of the table."""
    rows = server.hgetall(f"{PREFIX}work:{base}")
    return {name: int(value) for name, value in rows.items() if int(value)}


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


def test_the_node_with_the_least_to_do_gets_it_and_that_counts_at_once(
    topic: Topic, server: Server
) -> None:
    node = Phased(topic, "p", PREFILL)
    nodes = [Phased(topic, name, DECODE) for name in ("d1", "d2")]
    submit(topic, *"abcd")
    node.take()
    assert [node.hop(name, target=ALL_TOKENS) for name in "abcd"] == ["d1", "d2", "d1", "d2"]
    assert work(server, DECODE) == {
        f"{mark}{name}": 30 if mark != "#" else 2
        for mark in ("", "#", "~")
        for name in ("d1", "d2")
    }
    assert [member.take() for member in nodes] == [["a", "c"], ["b", "d"]]
    assert work(server, DECODE) == {"d1": 30, "#d1": 2, "d2": 30, "#d2": 2}
    nodes[0].settle("a", "c")
    assert work(server, DECODE) == {"d2": 30, "#d2": 2}
    assert work(server, PREFILL) == {}


@pytest.mark.parametrize("fault", ["lapsed", "draining", "other phase", "unknown", "too small"])
def test_a_node_that_cannot_take_it_is_not_chosen(topic: Topic, server: Server, fault: str) -> None:
    node, other = Phased(topic, "p", PREFILL), Phased(topic, "d1", DECODE)
    if fault == "lapsed":
        other.lapse(server)
    elif fault == "draining":
        topic.set_state("d1", other.inc, "draining")
    elif fault == "other phase":
        other.serve(PREFILL)
    elif fault == "too small":
        topic.set_state("d1", other.inc, "ready", {DECODE: 14})
    submit(topic, "a", "b")
    node.take()
    target = Target(("d9",) if fault == "unknown" else ("d1",), (1.0,), (0.0,))
    assert node.hop("a", target=target) == ""
    Phased(topic, "d2", DECODE)
    spare = target._replace(names=(*target.names, "d2"), weights=(1.0, 1.0), biases=(0.0, 9.0))
    assert node.hop("b", target=spare) == "d2"


def test_the_work_of_a_lost_node_is_forgotten_and_its_queue_shared(
    topic: Topic, server: Server
) -> None:
    node, lost = Phased(topic, "p", PREFILL), Phased(topic, "d1", DECODE)
    submit(topic, "a", "b")
    node.take()
    node.hop("a", target=ALL_TOKENS)
    assert lost.take() == ["a"]
    node.hop("b", target=ALL_TOKENS)
    lost.lapse(server)
    topic.beat("p", node.inc)
    assert work(server, DECODE) == {}
    assert Phased(topic, "d2", DECODE).take() == ["a", "b"]


def test_a_full_report_counts_work_anew_and_releases_what_never_ends(
    topic: Topic, server: Server
) -> None:
    node, other = Phased(topic, "p", PREFILL), Phased(topic, "d1", DECODE)
    submit(topic, "a", "b", "c")
    node.take()
    for name in "abc":
        node.hop(name, target=ALL_TOKENS)
    assert other.take(slots=2) == ["a", "b"]
    true = work(server, DECODE)
    assert true == {"d1": 45, "#d1": 3, "~d1": 15}
    server.hset(f"{PREFIX}work:{DECODE}", mapping={"d1": 7, "#d1": 99})
    topic.beat("d1", other.inc, full=True)
    assert work(server, DECODE) == true
    claim = other.claims["a"].claim
    server.hset(f"{PREFIX}pledged:{other.inc}", str(claim), "15 2 1000")
    topic.beat("d1", other.inc, full=True)
    assert work(server, DECODE) == {"d1": 30, "#d1": 2, "~d1": 15}
    other.settle("a", "b")
    assert work(server, DECODE) == {"d1": 15, "#d1": 1, "~d1": 15}


def test_a_thief_takes_the_work_along(topic: Topic, server: Server) -> None:
    node, _victim = Phased(topic, "p", PREFILL), Phased(topic, "d1", DECODE)
    names = [f"r{i}" for i in range(10)]
    submit(topic, *names)
    node.take()
    for name in names:
        node.hop(name, target=ALL_TOKENS)
    thief = Phased(topic, "d2", DECODE)
    stolen = thief.take()
    assert stolen == names[: len(stolen)] != []
    left = 10 - len(stolen)
    assert work(server, DECODE) == {
        "d1": 15 * left,
        "#d1": left,
        "~d1": 15 * left,
        "d2": 15 * len(stolen),
        "#d2": len(stolen),
    }
    assert Phased(topic, "p2", PREFILL).take() == []


def test_a_node_that_changes_its_phase_gives_back_what_waits_for_it(
    topic: Topic, server: Server
) -> None:
    node, other = Phased(topic, "p", PREFILL), Phased(topic, "d1", DECODE)
    submit(topic, "a", "b")
    node.take()
    node.hop("a", target=ALL_TOKENS)
    assert other.take() == ["a"]
    node.hop("b", target=ALL_TOKENS)
    other.serve(PREFILL)
    assert work(server, DECODE) == {"d1": 15, "#d1": 1}
    assert Phased(topic, "d2", DECODE).take() == ["b"]
    submit(topic, "c")
    assert other.take() == ["c"]
    other.settle("a", "c")
    assert work(server, DECODE) == {"d2": 15, "#d2": 1}
    assert work(server, PREFILL) == {}


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


def test_requests_are_placed_by_the_loads_of_the_moment(topic: Topic, server: Server) -> None:
    nodes = [Phased(topic, name, PREFILL) for name in ("p1", "p2")]
    target = Target(("p1", "p2"), (1.0, 2.0), (0.0, 0.0))
    items = [item(name, prompt=100)._replace(target=target) for name in "abcdef"]
    submitted = topic.submit(ORIGIN, "t", items)
    assert submitted.accepted == len(submitted.placed) == 6
    assert work(server, PREFILL)["p1"] + work(server, PREFILL)["p2"] == 600
    costs = {"p1": 0, "p2": 0}
    for name, load in submitted.placed:
        assert costs[name] * (2 if name == "p2" else 1) == min(costs["p1"], 2 * costs["p2"])
        costs[name] += 100
        assert costs[name] == load
    assert {member.name: member.take() for member in nodes} == {
        name: [n for n, went in zip("abcdef", submitted.placed, strict=True) if went.node == name]
        for name in ("p1", "p2")
    }
