"""What a thief needs of the channel: it judges what is fetched, and asks when all is quiet."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator

import pytest
from kombu import Connection, Producer, Queue

from inferq.transport import register_transports
from inferq.transport.broker import Broker
from inferq.transport.gate import RawMessage, Verdict
from tests.support import LONG_S
from tests.worker.thief_harness import Nodes


@pytest.fixture
def connection() -> Iterator[Connection]:
    register_transports()
    name = uuid.uuid4().hex
    with Connection(f"inferq-memory://{name}") as opened:
        yield opened
    Broker.discard(name)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.close()


class Except:
    """A cycle that takes everything but one."""

    def __init__(self, body: str) -> None:
        self._body = body

    def judge(self, message: RawMessage) -> Verdict:
        is_it = bytes(message["body"]).decode() == self._body
        return Verdict.PASS if is_it else Verdict.TAKE


def test_what_is_fetched_is_judged_and_the_rest_keeps_its_place(connection: Connection) -> None:
    channel = connection.channel()
    for body in "abc":
        Producer(channel).publish(body, routing_key="q", declare=[Queue("q")])
    channel.cycle = Except("a")
    assert channel.basic_get("q").body == b"b"
    assert channel.basic_get("q").body == b"c"
    assert channel.basic_get("q") is None
    channel.cycle = None
    assert channel.basic_get("q").body == b"a"


def test_who_waits_looks_elsewhere_again_when_woken(connection: Connection) -> None:
    channel = connection.channel()
    looks: list[int] = []

    def look() -> float:
        looks.append(1)
        if len(looks) == 1:
            channel.broker.wake()
        return math.inf if len(looks) == 1 else 0.0

    channel.elsewhere = look
    connection.drain_events()
    assert len(looks) == 2


def test_who_waits_looks_elsewhere_again_when_it_is_time(connection: Connection) -> None:
    channel = connection.channel()
    answers = [0.01, 0.01, 0.0]
    channel.elsewhere = lambda: answers.pop(0)
    connection.drain_events()
    assert answers == []
    channel.elsewhere = lambda: 0.01
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=LONG_S)


def test_room_that_is_kept_in_one_queue_is_not_given_to_the_next(nodes: Nodes) -> None:
    node = nodes.start(
        "node", slots=8, blocks=10, admission={"reserved_output_blocks": 0, "pass_by_s": 0}
    )
    nodes.send("node", 1, prompt_tokens=60)
    node.stage.wait_for(1)
    nodes.send("node", 2, prompt_tokens=60)
    nodes.send(None, 3)
    node.open()
    assert node.stage.wait_for(3) == [1, 2, 3]
