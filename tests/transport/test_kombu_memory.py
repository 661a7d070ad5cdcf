from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Message, Producer, Queue

LONG_S = 60.0


def publish(connection: Connection, *bodies: Any, queue: str = "q", **options: Any) -> None:
    with connection.channel() as channel:
        producer = Producer(channel, serializer="json")
        for body in bodies:
            producer.publish(body, routing_key=queue, declare=[Queue(queue)], **options)


def consumer(channel: Any, *queues: Queue, no_ack: bool = False) -> list[Message]:
    """Consume on a channel; what arrives is in the list."""
    got: list[Message] = []
    Consumer(channel, queues or [Queue("q")], on_message=got.append, no_ack=no_ack).consume()
    return got


def drain(connection: Connection) -> None:
    with suppress(TimeoutError):
        while True:
            connection.drain_events(timeout=0.02)


def bodies(messages: list[Message]) -> list[Any]:
    return [message.payload for message in messages]


def redelivered(message: Message) -> bool:
    return bool(message.delivery_info.get("redelivered"))


def test_messages_arrive_in_order_and_are_over_when_acknowledged(connection: Connection) -> None:
    publish(connection, 1, 2, 3)
    channel = connection.channel()
    got = consumer(channel)
    drain(connection)
    assert bodies(got) == [1, 2, 3]
    assert not any(redelivered(message) for message in got)
    for message in got:
        message.ack()
    channel.close()
    assert connection.channel().queue_declare("q").message_count == 0


def test_higher_priorities_come_first(connection: Connection) -> None:
    for body, priority in [("last", 9), ("mid", 5), ("first", 0), ("mid too", 5)]:
        publish(connection, body, priority=priority)
    got = consumer(connection.channel())
    drain(connection)
    assert bodies(got) == ["first", "mid", "mid too", "last"]


def test_a_rejected_message_is_gone(connection: Connection) -> None:
    publish(connection, 1)
    got = consumer(connection.channel())
    drain(connection)
    got[0].reject()
    drain(connection)
    assert len(got) == 1


def test_a_requeued_message_comes_again_in_its_place(connection: Connection) -> None:
    publish(connection, 1, 2, 3)
    channel = connection.channel()
    first, second = (channel.basic_get("q") for _ in range(2))
    second.requeue()
    first.requeue()
    got = consumer(channel)
    drain(connection)
    assert bodies(got) == [1, 2, 3]
    assert [redelivered(message) for message in got] == [True, True, False]


def test_closing_a_channel_puts_back_what_it_had_not_acknowledged(connection: Connection) -> None:
    publish(connection, *range(6))
    channel = connection.channel()
    got = consumer(channel)
    drain(connection)
    got[0].ack()
    got[3].ack()
    channel.close()
    again = consumer(connection.channel())
    drain(connection)
    assert bodies(again) == [1, 2, 4, 5]
    assert all(redelivered(message) for message in again)


def test_closing_a_connection_puts_back_what_it_had_not_acknowledged(url: str) -> None:
    with Connection(url) as first:
        publish(first, 1, 2)
        consumer(first.channel())
        drain(first)
    with Connection(url) as second:
        got = consumer(second.channel())
        drain(second)
    assert bodies(got) == [1, 2]


def test_a_consumer_that_does_not_acknowledge_has_it_for_good(connection: Connection) -> None:
    publish(connection, 1)
    channel = connection.channel()
    got = consumer(channel, no_ack=True)
    drain(connection)
    channel.close()
    assert len(got) == 1
    assert connection.channel().basic_get("q") is None


def test_one_message_can_be_fetched(connection: Connection) -> None:
    publish(connection, 1, 2)
    channel = connection.channel()
    assert channel.basic_get("q", no_ack=True).body == b"1"
    assert channel.basic_get("q").body == b"2"
    assert channel.basic_get("q") is None
    channel.close()
    left = connection.channel()
    assert left.basic_get("q").body == b"2"
    assert left.basic_get("q") is None


def test_fanout_reaches_every_queue(connection: Connection) -> None:
    exchange = Exchange("news", type="fanout")
    queues = [Queue(name, exchange) for name in ("a", "b")]
    channel = connection.channel()
    got = [consumer(channel, queue) for queue in queues]
    Producer(channel).publish("hi", exchange=exchange, declare=queues)
    drain(connection)
    assert [bodies(messages) for messages in got] == [["hi"], ["hi"]]


def test_topics_reach_the_queues_whose_pattern_matches(connection: Connection) -> None:
    exchange = Exchange("events", type="topic")
    channel = connection.channel()
    got = {
        key: consumer(channel, Queue(f"by {key}", exchange, routing_key=key))
        for key in ("task.*", "task.#", "#", "worker.online")
    }
    producer = Producer(channel, exchange=exchange)
    for key in ("task.sent", "task.sent.twice", "worker.online"):
        producer.publish(key, routing_key=key)
    drain(connection)
    assert {key: bodies(messages) for key, messages in got.items()} == {
        "task.*": ["task.sent"],
        "task.#": ["task.sent", "task.sent.twice"],
        "#": ["task.sent", "task.sent.twice", "worker.online"],
        "worker.online": ["worker.online"],
    }


def test_waiting_for_nothing_ends_after_the_timeout(connection: Connection) -> None:
    consumer(connection.channel())
    before = time.monotonic()
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=0.05)
    assert 0.05 <= time.monotonic() - before < LONG_S


def test_a_message_of_another_thread_wakes_who_waits(url: str) -> None:
    arrived = threading.Event()

    def consume() -> None:
        with Connection(url) as connection:
            got = consumer(connection.channel())
            publish(connection, "ready", queue="answers")
            connection.drain_events(timeout=LONG_S)
            assert bodies(got) == ["hi"]
            arrived.set()

    thread = threading.Thread(target=consume)
    with Connection(url) as connection:
        answers = consumer(connection.channel(), Queue("answers"))
        thread.start()
        connection.drain_events(timeout=LONG_S)
        assert bodies(answers) == ["ready"]
        publish(connection, "hi")
        assert arrived.wait(LONG_S / 10)
        thread.join(LONG_S)
