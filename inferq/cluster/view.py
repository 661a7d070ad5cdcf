"""What can be seen of a topic without changing it: its nodes and its queues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from inferq.cluster.keys import STEPS, list_of
from inferq.cluster.link import Link
from inferq.cluster.pipeline import call_all
from inferq.cluster.topic import Topic
from inferq.routing.topics import prefill_queue

_LISTS = range(1, len(STEPS) + 1)


class NodeView(NamedTuple):
    """A node at one moment.

    ``lease_s``: until its lease lapses, seconds; negative: it has lapsed; None: it has none.
    ``seen_s``: since it was heard of. ``queued``: in its own queue. ``claims``: taken and not
    finished. ``load``: both. ``stolen``: taken by others from its queue, ever. The rest is what
    the node says of itself.
    """

    name: str
    state: str
    lease_s: float | None
    seen_s: float | None
    queued: int
    claims: int
    stolen: int
    role: str = ""
    host: str = ""
    engine: str = ""
    version: str = ""
    total_blocks: int = 0
    free_blocks: int = 0
    total_slots: int = 0
    free_slots: int = 0
    block_size: int = 0

    @property
    def load(self) -> int:
        """What it has to do, requests."""
        return self.queued + self.claims

    @property
    def live(self) -> bool:
        """Whether it holds a lease."""
        return self.lease_s is not None and self.lease_s > 0


class View:
    """Reads a topic. For one thread, like its link. Every method raises one of link.AWAY.

    The numbers come from several commands: each is right, but not all of the same moment.
    """

    def __init__(self, topic: Topic) -> None:
        self._link: Link = topic.link
        self._prefix = topic.prefix
        self._topic_name = topic.settings.scheduler_topic

    def queue_lengths(self, nodes: Sequence[str] = ()) -> dict[str, int]:
        """Requests that wait, by queue: the shared one, and those of the given nodes."""
        queues = [prefill_queue(self._topic_name, node) for node in (None, *nodes)]
        lengths = call_all(
            self._link, [("LLEN", list_of(queue, step)) for queue in queues for step in _LISTS]
        )
        width = len(STEPS)
        return {q: sum(lengths[i * width : (i + 1) * width]) for i, q in enumerate(queues)}

    def nodes(self) -> list[NodeView]:
        """All nodes that are known, by name, also those that are gone."""
        names = ("nodes", "states", "incs", "stolen")
        commands: list[tuple[Any, ...]] = [("HGETALL", self._prefix + name) for name in names]
        commands += [
            ("ZRANGE", f"{self._prefix}{key}", 0, -1, "WITHSCORES") for key in ("leases", "seen")
        ]
        *flat, time = call_all(self._link, [*commands, ("TIME",)])
        records, states, incs, stolen, leases, seen = (_pairs(part) for part in flat)
        now_ms = int(time[0]) * 1000 + int(time[1]) / 1000
        order = sorted(records)
        queued = list(self.queue_lengths(order).values())[1:]
        claims = self._claims([incs.get(name, "") for name in order])
        return [
            NodeView(
                name=name,
                state=states.get(name, ""),
                lease_s=_seconds(leases.get(incs.get(name, "")), now_ms),
                seen_s=_seconds(seen.get(name), now_ms, since=True),
                queued=waiting,
                claims=claimed,
                stolen=int(stolen.get(name, 0)),
                **_own_words(records[name]),
            )
            for name, waiting, claimed in zip(order, queued, claims, strict=True)
        ]

    def claims(self) -> int:
        """Requests that nodes have taken and not finished, lost nodes included."""
        leases = self._link.call("ZRANGE", f"{self._prefix}leases", 0, -1)
        return sum(self._claims([_text(inc) for inc in leases]))

    def _claims(self, incs: Sequence[str]) -> list[int]:
        return call_all(self._link, [("HLEN", f"{self._prefix}claims:{inc}") for inc in incs])


def _own_words(record: str) -> dict[str, Any]:
    """What a node's record says, as far as it is what it should be."""
    try:
        said = json.loads(record)
    except ValueError:
        return {}
    if not isinstance(said, Mapping):
        return {}
    defaults = NodeView._field_defaults
    return {
        name: said[name]
        for name, default in defaults.items()
        if type(said.get(name)) is type(default)
    }


def _pairs(flat: Sequence[Any]) -> dict[str, str]:
    texts = [_text(part) for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _seconds(at_ms: str | None, now_ms: float, *, since: bool = False) -> float | None:
    if at_ms is None:
        return None
    left_s = (float(at_ms) - now_ms) / 1000
    return -left_s if since else left_s


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else str(raw)
