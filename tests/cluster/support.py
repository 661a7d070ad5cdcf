"""What the tests of a topic share: nodes without workers, requests without content."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgpack
import redis

from inferq.cluster.keys import list_of, quoted, stream_of
from inferq.cluster.link import Link
from inferq.cluster.topic import Fenced, Group, Item, Look, Return, Room, Settle, Taken, Topic
from inferq.settings import Settings

#: A client for looking into the server; half of its types are unions nobody can use.
Server: TypeAlias = Any

ORIGIN = "inferq.0a.2"
PREFIX = "inferq:default:"
#: The table of nodes whose queue of new requests is not empty; a shard follows.
LOADS = f"{PREFIX}load:default.prefill:"
BASE = "default.prefill"
LARGEST = 1_000_000

PLENTY = Room(
    slots=1000,
    blocks=100_000,
    tokens=LARGEST,
    prefills=1000,
    longs=1000,
    idle=True,
    chunked=False,
    block_size=1,
    reserved=0,
    total_blocks=100_000,
    long_from=LARGEST,
    longest=LARGEST,
)


def settings_of(port: int, *, cluster: dict[str, Any] | None = None, **values: Any) -> Settings:
    """Settings of a topic with leases that do not lapse by themselves."""
    fields: dict[str, Any] = {"scheduler_name": "global", **values}
    return Settings(
        scheduler_url=f"redis://127.0.0.1:{port}/0",
        cluster={"lease_ttl_s": 600, "steal_after_s": 600, **(cluster or {})},
        **fields,
    )


@contextmanager
def another(settings: Settings) -> Iterator[Topic]:
    """A topic with other settings."""
    link = Link(settings)
    try:
        yield Topic(settings, link)
    finally:
        link.close()


def item(
    request_id: str, *, step: int = 1, prompt: int = 10, answer: int = 10, ttl_s: float = 600
) -> Item:
    """A request whose message says who it is."""
    message = b'{"body": "' + request_id.encode() + b'"}'
    return Item(message, request_id, step, ttl_s, prompt, answer)


def submit(topic: Topic, *ids: str, node: str = "", **fields: Any) -> None:
    """Submit requests that must find room."""
    items = [item(request_id, **fields) for request_id in ids]
    accepted = topic.submit(ORIGIN, uuid.uuid4().hex, items, node)
    assert accepted == (len(ids), (), ()), accepted


def push(server: Server, *bodies: str, queue: str = BASE, step: int = 1) -> None:
    """What a stock producer does."""
    for body in bodies:
        server.lpush(list_of(queue, step), f'{{"body": "{body}"}}')


def body_of(raw: bytes | str) -> str:
    """Who a message is."""
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    return text.rpartition('"body": "')[2].rstrip('"}')


def waiting(server: Server, queue: str = BASE, step: int = 1) -> list[str]:
    """Who waits in a list, the first one first."""
    return [body_of(raw) for raw in reversed(server.lrange(list_of(queue, step), 0, -1))]


def listen(server: Server, *ids: str, origin: str = ORIGIN) -> None:
    """Make the streams of requests, as their origin does."""
    for request_id in ids:
        stream = stream_of(PREFIX, origin, request_id)
        assert stream is not None
        server.xadd(stream, {"": ""})


def ends(port: int, request_id: str, origin: str = ORIGIN) -> list[list[Any]]:
    """What the origin of a request is told by scripts."""
    stream = stream_of(PREFIX, origin, request_id)
    with redis.Redis(port=port) as client:
        entries = client.xrange(stream)
    told = [msgpack.unpackb(fields[b"end"]) for _, fields in entries if b"end" in fields]
    return [end for end in told if end[0] == request_id]


def letters(server: Server) -> list[tuple[str, str]]:
    """Who is a dead letter, and why."""
    entries = server.xrange(f"{PREFIX}dead")
    return [(body_of(fields["raw"]), fields["reason"]) for _, fields in entries]


class Member:
    """A node that is ready, and what it holds."""

    def __init__(self, topic: Topic, name: str, *, longest: int = LARGEST) -> None:
        self.topic = topic
        self.name = name
        self.longest = longest
        self.claims: dict[str, Taken] = {}
        self.inc = ""
        self.join()

    def join(self) -> None:
        """Register and be ready."""
        self.claims.clear()
        self.inc = self.topic.register(self.name, "{}")
        self.topic.set_state(self.name, self.inc, "ready", {self.topic.base: self.longest})

    def look(
        self, *, reserve: str = "", take: bool = True, largest: int = LARGEST, **room: Any
    ) -> Look:
        """Look at the queues with plenty of room, except for what is given."""
        look = self.topic.claim(
            self.name,
            self.inc,
            PLENTY._replace(**{"longest": self.longest, **room}),
            reserve=reserve,
            largest=largest,
            take=take,
        )
        self.claims.update({body_of(taken.raw): taken for taken in look.taken})
        return look

    def take(self, **options: Any) -> list[str]:
        """Who was taken in one look."""
        return [body_of(taken.raw) for taken in self.look(**options).taken]

    def put_back(self, *bodies: str, started: bool = False) -> None:
        """Return claims."""
        returns = [Return(self.claims.pop(body).claim, started) for body in bodies]
        self.topic.put_back(self.name, self.inc, returns)

    def settle(self, *bodies: str) -> None:
        """End requests."""
        settles = [
            Settle(taken.claim, quoted(taken.request_id))
            for taken in (self.claims.pop(body) for body in bodies)
        ]
        assert self.topic.emit(self.name, self.inc, [Group("", b"", settles)]) == [0]

    def lapse(self, server: Server) -> None:
        """Let the lease run out."""
        server.zadd(f"{PREFIX}leases", {self.inc: 1})

    def is_fenced(self) -> bool:
        """Whether its steps are refused."""
        try:
            self.topic.emit(self.name, self.inc, [])
        except Fenced:
            return True
        return False

    def bell(self, server: Server) -> list[str]:
        """Read all that waits for it."""
        key = f"{PREFIX}bell:{self.inc}"
        rings = server.lrange(key, 0, -1)
        server.delete(key)
        return list(rings)
