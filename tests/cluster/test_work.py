"""What nodes have to do is counted in the step that moves a message."""

from __future__ import annotations

import pytest

from inferq.cluster.topic import Target, Topic
from tests.cluster.phased import (
    ALL_TOKENS,
    DECODE,
    PREFILL,
    Phased,
    work,
)
from tests.cluster.support import (
    ORIGIN,
    PREFIX,
    Server,
    item,
    submit,
)


@pytest.fixture
def topic(split_topic: Topic) -> Topic:
    return split_topic


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
