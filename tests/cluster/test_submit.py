from __future__ import annotations

import json

from inferq.cluster.keys import Envelope, quoted
from inferq.cluster.topic import Item, Topic
from inferq.settings import Settings
from tests.cluster.support import (
    BASE,
    LOADS,
    ORIGIN,
    PREFIX,
    Member,
    Server,
    another,
    item,
    push,
    settings_of,
    submit,
    waiting,
)


def test_requests_wait_in_the_order_in_which_they_came(topic: Topic, server: Server) -> None:
    submit(topic, "a", "b")
    submit(topic, "c")
    assert waiting(server) == ["a", "b", "c"]


def test_each_priority_has_a_list_of_its_own(topic: Topic, server: Server) -> None:
    topic.submit(ORIGIN, "t", [item("low", step=4), item("high", step=1), item("mid", step=2)])
    assert [waiting(server, step=step) for step in (1, 2, 3, 4)] == [["high"], ["mid"], [], ["low"]]


def test_the_envelope_has_redis_time_whatever_the_producers_clock_says(
    topic: Topic, server: Server
) -> None:
    seconds, _ = server.time()
    topic.submit(ORIGIN, "t", [item("q 1", prompt=7, answer=3, ttl_s=20)])
    [raw] = server.lrange(BASE, 0, -1)
    fields = json.loads(raw)["inferq"]
    assert raw.startswith('{"inferq": [')
    number, attempt, prompt, answer, submitted, deadline, quoted_id = fields
    assert (number, attempt, prompt, answer, quoted_id) == (0, 0, 7, 3, "q%201")
    assert deadline - submitted == 20_000
    assert seconds * 1000 <= submitted < seconds * 1000 + 60_000
    assert raw.startswith(Envelope(*fields).serialize())


def test_repeating_a_call_with_its_token_does_nothing(topic: Topic, server: Server) -> None:
    items = [item("a"), item("b")]
    assert topic.submit(ORIGIN, "t", items).accepted == 2
    assert topic.submit(ORIGIN, "t", items).accepted == 2
    assert waiting(server) == ["a", "b"]


def test_repeating_a_call_whose_requests_run_or_have_ended_does_nothing(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n")
    items = [item("a"), item("b")]
    topic.submit(ORIGIN, "t", items)
    node.take()
    node.settle("a")
    assert topic.submit(ORIGIN, "t", items).accepted == 2
    assert node.take() == []


def test_an_id_is_free_again_once_its_request_has_ended(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "a")
    node.take()
    node.settle("a")
    assert topic.submit(ORIGIN, "another call", [item("a")]).accepted == 1
    assert node.take() == ["a"]


def test_ids_of_live_requests_are_refused_and_nothing_is_enqueued(
    topic: Topic, server: Server
) -> None:
    topic.submit(ORIGIN, "mine", [item("a"), item("é b")])
    for origin, token in [(ORIGIN, "another call"), ("inferq.0b.2", "mine")]:
        answer = topic.submit(origin, token, [item("new"), item("a"), item("é b")])
        assert answer[:2] == (0, ("a", quoted("é b")))
    assert waiting(server) == ["a", "é b"]


def test_an_id_twice_in_one_call_is_refused(topic: Topic, server: Server) -> None:
    assert topic.submit(ORIGIN, "t", [item("a"), item("b"), item("a")])[:2] == (0, ("a",))
    assert waiting(server) == []


def test_a_full_queue_accepts_the_first_ones(port: int, server: Server) -> None:
    with another(settings_of(port, cluster={"max_waiting": 3})) as topic:
        push(server, "stock", step=3)
        items = [item(name) for name in "abcd"]
        assert topic.submit(ORIGIN, "t", items).accepted == 2
        assert topic.submit(ORIGIN, "t", items).accepted == 2
        node = Member(topic, "n")
        assert node.take(slots=1) == ["a"]
        assert topic.submit(ORIGIN, "t", items).accepted == 3
        assert waiting(server) == ["b", "c"]


def test_what_is_before_a_known_request_keeps_its_promise_although_the_queue_is_full(
    port: int, server: Server
) -> None:
    with another(settings_of(port, cluster={"max_waiting": 2})) as topic:
        topic.submit(ORIGIN, "t", [item("a"), item("b")])
        server.delete(f"{PREFIX}req:a")  # forgotten, its end was long ago
        assert topic.submit(ORIGIN, "t", [item("a"), item("b"), item("c")]).accepted == 2
        assert sorted(waiting(server)) == ["a", "a", "b"]


def test_requests_for_a_node_go_to_its_own_queue(topic: Topic, server: Server) -> None:
    node = Member(topic, "n@here")
    submit(topic, "a", node="n@here", step=2)
    assert waiting(server, f"{BASE}.n@here", step=2) == ["a"]
    assert server.zrange(LOADS + "0", 0, -1, withscores=True) == [("n@here", 1.0)]
    assert node.bell(server) == ['["look"]']


def test_requests_for_a_node_that_is_not_ready_go_to_all(topic: Topic, server: Server) -> None:
    topic.register("starting", "{}")
    topic.set_state("draining", Member(topic, "draining").inc, "draining")
    topic.set_state("gone", Member(topic, "gone").inc, "gone")
    for name in ("starting", "draining", "gone", "unknown"):
        submit(topic, f"for {name}", node=name)
    assert waiting(server) == ["for starting", "for draining", "for gone", "for unknown"]


def test_ten_thousand_requests_are_one_call(topic: Topic, server: Server) -> None:
    items = [item(f"r{i}", step=1 + i % 4) for i in range(10_000)]
    assert topic.submit(ORIGIN, "t", items).accepted == 10_000
    assert topic.submit(ORIGIN, "t", items).accepted == 10_000
    assert waiting(server, step=2) == [f"r{i}" for i in range(1, 10_000, 4)]
    assert len(topic.submit(ORIGIN, "u", items).duplicates) == 10_000


def test_a_life_without_end_is_cut(topic: Topic, server: Server) -> None:
    topic.submit(ORIGIN, "t", [item("a", ttl_s=float("inf")), item("b", ttl_s=-5)])
    node = Member(topic, "n")
    [forever, over] = node.look().taken
    assert forever.deadline_ms > forever.submitted_ms + 10**11
    assert over.deadline_ms == over.submitted_ms + 1


def test_records_go_by_themselves(topic: Topic, server: Server, settings: Settings) -> None:
    submit(topic, "a", ttl_s=20)
    kept_ms = settings.cluster.redis_timeout_s * 2000
    assert 0 < server.pttl(f"{PREFIX}req:a") <= 20_000 + kept_ms
    node = Member(topic, "n")
    node.take()
    node.settle("a")
    assert 0 < server.pttl(f"{PREFIX}req:a") <= kept_ms


def test_messages_of_any_bytes_arrive_unchanged(topic: Topic, server: Server) -> None:
    message = b'{"body": "\x00\xff\xc3\r\n\xed\xa0\x80\\" }, '
    topic.submit(ORIGIN, "t", [Item(message, "a", 1, 60)])
    [taken] = Member(topic, "n").look().taken
    assert taken.raw.endswith(message[1:])
