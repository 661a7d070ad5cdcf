"""What happens to a topic, for pages to show."""

from __future__ import annotations

import json
from typing import Any

import msgpack

from inferq import Settings
from inferq.cluster.keys import quoted, stream_of
from inferq.cluster.link import Link
from inferq.cluster.rows import Burial, Group, Item, Settle
from inferq.cluster.stories import pack_story
from inferq.cluster.topic import Topic
from inferq.messages import Output
from tests.fake_node import PLENTY, RECORD, ROOM, FakeNode, Job
from tests.redis_server import RedisServer

#: Markup that would run in whichever way it gets into a page.
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def say(node: FakeNode, **words: Any) -> None:
    """Have a node say something of itself."""
    node.topic.beat(node.name, node.inc, json.dumps({**RECORD, **words}))


def lose(node: FakeNode, server: RedisServer) -> None:
    """Its lease lapses, and nobody is there to notice."""
    with server.client() as client:
        client.zadd("inferq:default:leases", {node.inc: 1})


def bury_all(node: FakeNode, reason: str = "malformed", detail: str = "a sentence") -> None:
    """Make dead letters of all that waits."""
    look = node.topic.claim(node.name, node.inc, ROOM, reserve="", largest=PLENTY)
    node.topic.bury(node.name, node.inc, [Burial(t.claim, reason, detail) for t in look.taken])


def finish(node: FakeNode, job: Job, last: Output) -> None:
    """Have a request end as a worker would, with the story of its life."""
    stream = stream_of(node.topic.prefix, job.origin, job.request_id)
    assert stream is not None
    settle = Settle(job.taken.claim, quoted(job.request_id), story=pack_story(last))
    group = Group(stream, msgpack.packb([last.to_wire()]), [settle])
    assert node.topic.emit(node.name, node.inc, [group]) == [0]


def crowd(settings: Settings, nodes: int, requests: int) -> None:
    """Many nodes, and many requests that wait."""
    topic = Topic(settings, Link(settings))
    for number in range(nodes):
        name = f"gpu{number}@host{number // 8}"
        inc = topic.register(name, json.dumps(RECORD))
        topic.set_state(name, inc, "ready", {topic.base: PLENTY})
    for first in range(0, requests, 1000):
        ids = [f"r{number}" for number in range(first, min(first + 1000, requests))]
        items = [Item(b'{"body": ""}', name, 1, 600.0, prompt_tokens=10) for name in ids]
        assert topic.submit("inferq.00.1", str(first), items).accepted == len(ids)
    topic.link.close()
