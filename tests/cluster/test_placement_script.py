"""The script's choice among candidates is the one that routing/placement describes in Python."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from inferq.cluster.placing import Placing, read_snapshot, target_of
from inferq.cluster.topic import Topic
from inferq.routing.placement import Candidate, Shortlist, choose
from tests.cluster.support import (
    LARGEST,
    ORIGIN,
    PREFIX,
    Member,
    Server,
    another,
    item,
    settings_of,
)

NAMES = [f"n{i}" for i in range(10)]
PROMPT = 100
BASE = "default.prefill"

weights = st.sampled_from([0.0, 0.25, 1.0, 3.0])
biases = st.sampled_from([-50.0, 0.0, 10.0, 1000.0])
shortlists = st.builds(
    lambda names, numbers, slack, among: Shortlist(
        tuple(Candidate(name, *pair) for name, pair in zip(names, numbers, strict=False)),
        slack,
        among,
    ),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=8, unique=True),
    st.lists(st.tuples(weights, biases), min_size=8, max_size=8),
    st.sampled_from([0.0, 1.0, 200.0, 1e9]),
    st.integers(1, 8),
)


@pytest.fixture
def topic(split_topic: Topic) -> Topic:
    return split_topic


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    shortlist=shortlists,
    loads=st.lists(st.integers(0, 500), min_size=10, max_size=10),
    unable=st.sets(st.sampled_from(NAMES)),
    lapsed=st.sets(st.sampled_from(NAMES)),
)
def test_the_script_chooses_as_the_rule_says(
    topic: Topic,
    server: Server,
    shortlist: Shortlist,
    loads: list[int],
    unable: set[str],
    lapsed: set[str],
) -> None:
    server.flushall()
    known = dict(zip(NAMES, loads, strict=True))
    for name, load in known.items():
        if name not in unable:
            member = Member(topic, name)
            server.hset(f"{PREFIX}work:{BASE}", name, str(load))
            if name in lapsed:
                member.lapse(server)
    expected = choose(shortlist, known, lambda name: name not in unable | lapsed)
    asked = item("r", prompt=PROMPT)._replace(target=target_of(shortlist))
    [placed] = topic.submit(ORIGIN, uuid.uuid4().hex, [asked]).placed
    assert placed.node == (expected or "")
    if expected is not None:
        assert placed.load == known[expected] + PROMPT


def test_a_snapshot_shows_what_nodes_serve_and_have_to_do(topic: Topic, server: Server) -> None:
    first, second = Member(topic, "both"), Member(topic, "second")
    limits = {topic.base: LARGEST, topic.decode_base: LARGEST}
    topic.set_state("both", first.inc, "ready", limits)
    topic.set_state("second", second.inc, "ready", {topic.decode_base: 77})
    Member(topic, "drains").topic.set_state("drains", Member(topic, "leaves").inc, "gone")
    server.hset(f"{PREFIX}work:{topic.base}", "both", "30")
    server.hset(f"{PREFIX}work:{topic.decode_base}", mapping={"second": "40", "#second": "2"})
    snapshot, _ = read_snapshot(topic)
    nodes = {node.name: node for node in snapshot.nodes}
    assert (nodes["both"].role, nodes["both"].prefill_tokens) == ("mixed", 30)
    assert (nodes["second"].role, nodes["second"].longest) == ("decode", 77)
    assert (nodes["second"].decode_tokens, nodes["second"].decode_requests) == (40, 2)
    assert all(node.lease_until_ms > snapshot.now_ms for node in snapshot.nodes)
    assert "leaves" not in nodes


def test_hostile_records_are_no_obstacle(topic: Topic, server: Server) -> None:
    Member(topic, "n")
    for record in ("", "[]", "{", '{"host": 3, "total_blocks": "x", "prefill_tokens_per_s": null}'):
        server.hset(f"{PREFIX}nodes", "n", record)
        snapshot, _ = read_snapshot(topic)
        [node] = snapshot.nodes
        assert (node.host, node.total_blocks, node.prefill_tokens_per_s) == ("", 0, 0.0)


def asked(server: Server) -> int:
    """Scripts that were run, and snapshots that were read."""
    stats = server.info("commandstats")
    names = ("evalsha", "eval", "hgetall")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in names)


def test_the_number_of_commands_does_not_grow_with_requests(server: Server, port: int) -> None:
    placement = {"prefill_policy": "least_time", "refresh_s": 60}
    with another(settings_of(port, scheduler_name="splitwise", placement=placement)) as topic:
        for name in NAMES:
            Member(topic, name)
        placing = Placing(topic.settings, ["prefill"])

        def send(count: int) -> int:
            before = asked(server)
            items = [item(uuid.uuid4().hex, prompt=PROMPT) for _ in range(count)]
            answer = topic.submit(ORIGIN, uuid.uuid4().hex, placing.place_items(topic, items))
            placing.learn(topic, "prefill", answer.placed)
            return asked(server) - before

        send(1)
        assert send(100) == send(1) == 1
        table = server.hgetall(f"{PREFIX}work:{BASE}")
        sent = {name: int(table[f"#{name}"]) for name in NAMES}
        assert max(sent.values()) - min(sent.values()) <= 1
