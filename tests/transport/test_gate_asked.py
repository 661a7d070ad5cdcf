from __future__ import annotations

from contextlib import suppress

import pytest
from kombu import Connection, Consumer, Message, Producer, Queue

from inferq.transport.gate import RawMessage, Verdict


class Doorman:
    """A gate that judges by the body, and is its own cycle."""

    def __init__(self, **verdicts: Verdict) -> None:
        self.verdicts = verdicts
        self.is_open = True
        self.asked: list[str] = []
        self.freed: list[str] = []

    def open(self) -> Doorman | None:
        return self if self.is_open else None

    def judge(self, message: RawMessage) -> Verdict:
        body = bytes(message["body"]).decode()
        self.asked.append(body)
        return self.verdicts.get(body, Verdict.TAKE)

    def released(self, delivery_tag: str) -> None:
        self.freed.append(delivery_tag)


def arrivals(connection: Connection, gate: Doorman, *, gated: str = "q") -> list[Message]:
    """What comes of a, b, c, d when ``gate`` watches the queue ``gated``."""
    channel = connection.channel()
    producer = Producer(channel)
    for body in "abcd":
        producer.publish(body, routing_key="q", declare=[Queue("q")])
    channel.gate = gate
    channel.gated_queues = frozenset({gated})
    got: list[Message] = []
    Consumer(channel, [Queue("q")], on_message=got.append).consume()
    drain(connection)
    return got


def drain(connection: Connection) -> None:
    with suppress(TimeoutError):
        while True:
            connection.drain_events(timeout=0.02)


def test_what_the_gate_passes_by_stays_and_the_rest_comes(connection: Connection) -> None:
    gate = Doorman(b=Verdict.PASS)
    got = arrivals(connection, gate)
    assert [m.payload for m in got] == ["a", "c", "d"]
    gate.verdicts.clear()
    drain(connection)
    assert [m.payload for m in got] == ["a", "c", "d", "b"]


def test_nothing_behind_a_stop_is_taken_or_looked_at(connection: Connection) -> None:
    gate = Doorman(b=Verdict.STOP)
    got = arrivals(connection, gate)
    assert [m.payload for m in got] == ["a"]
    assert set(gate.asked) == {"a", "b"}
    gate.verdicts.clear()
    drain(connection)
    assert [m.payload for m in got] == ["a", "b", "c", "d"]


def test_a_shut_gate_lets_nothing_in(connection: Connection) -> None:
    gate = Doorman()
    gate.is_open = False
    assert arrivals(connection, gate) == []
    assert gate.asked == []


def test_a_queue_that_is_not_gated_is_not_judged(connection: Connection) -> None:
    gate = Doorman()
    gate.is_open = False
    assert len(arrivals(connection, gate, gated="other")) == 4
    assert gate.asked == []


def test_the_gate_hears_of_every_end(connection: Connection) -> None:
    gate = Doorman()
    got = arrivals(connection, gate)
    ends = [got[0].ack, got[1].reject, got[2].requeue]
    for end in ends:
        end()
    assert gate.freed == [message.delivery_tag for message in got[:3]]


def test_who_waits_looks_again_when_woken(connection: Connection) -> None:
    gate = Doorman()
    gate.is_open = False
    got = arrivals(connection, gate)
    gate.is_open = True
    connection.transport.broker.wake()
    connection.drain_events(timeout=60)
    assert len(got) == 4


def test_the_gate_hears_of_a_put_back_before_the_message_can_be_taken_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Doorman()
    got = arrivals(connection, gate)
    broker = connection.transport.broker
    waiting: list[int] = []
    monkeypatch.setattr(gate, "released", lambda _: waiting.append(broker.size("q")))
    got[0].requeue()
    assert waiting == [0]
    assert broker.size("q") == 1
