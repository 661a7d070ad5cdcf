"""What can be seen of a topic without changing it: its nodes and its queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from redis.exceptions import NoPermissionError

from inferq.cluster.answers import pairs, text
from inferq.cluster.keys import SEPARATOR, STEPS, list_of
from inferq.cluster.link import Link
from inferq.cluster.pipeline import call_all
from inferq.cluster.seen import MAX_RECORD_BYTES, NodeView, QueueView, own_words
from inferq.cluster.topic import Topic
from inferq.routing.topics import decode_queue, prefill_queue

__all__ = ["NodeView", "QueueView", "View"]

_LISTS = range(1, len(STEPS) + 1)
#: Nodes, or queues, of which one script call tells: some hundred microseconds of Redis.
_AT_ONCE = 100
#: More are not looked at.
MOST_NODES = 2_000
MOST_ORPHANS = 1_000
#: Keys of the server that one ``queues`` looks through, and one call to Redis.
KEYS_A_LOOK = 20_000
_KEYS_A_CALL = 2_000

_HASHES = ("states", "incs", "stolen", "stole")
_SETS = ("leases", "seen")


class _Rows(NamedTuple):
    """What a survey said: by node, record and claims; by queue, lengths and submission."""

    now_ms: float
    nodes: list[tuple[str, int]]
    queues: list[tuple[tuple[int, ...], int]]


class View:
    """Reads a topic. For one thread, like its link. Every method raises one of link.AWAY.

    The numbers come from several commands: each is right, but not all of the same moment.
    """

    def __init__(self, topic: Topic) -> None:
        self._link: Link = topic.link
        self._prefix = topic.prefix
        self._topic_name = topic.settings.scheduler_topic
        self._bases = (topic.base, topic.decode_base)
        #: Where the search for queues that no node owns goes on, and what it found: their nodes.
        self._cursor = b"0"
        self._orphans: set[tuple[str, str]] = set()

    def queue_lengths(self, nodes: Sequence[str] = ()) -> dict[str, int]:
        """Requests that wait, by queue: the shared ones, and those of the given nodes."""
        phases = (prefill_queue, decode_queue)
        queues = [of(self._topic_name, node) for of in phases for node in (None, *nodes)]
        lengths = call_all(
            self._link, [("LLEN", list_of(queue, step)) for queue in queues for step in _LISTS]
        )
        width = len(STEPS)
        return {q: sum(lengths[i * width : (i + 1) * width]) for i, q in enumerate(queues)}

    def nodes(self) -> list[NodeView]:
        """All nodes that are known, by name, also those that are gone."""
        commands: list[tuple[Any, ...]] = [("HKEYS", f"{self._prefix}nodes")]
        commands += [("HGETALL", self._prefix + name) for name in _HASHES]
        keys = (*_SETS, *(f"limits:{base}" for base in self._bases))
        commands += [("ZRANGE", self._prefix + key, 0, -1, "WITHSCORES") for key in keys]
        known, *flat = call_all(self._link, commands)
        tables = [pairs(part) for part in flat]
        order = sorted(text(name) for name in known)[:MOST_NODES]
        own = [(node, self._own_queues(node)) for node in order]
        rows = self._survey(order, [queue for _, queues in own for queue in queues])
        return [
            _node_view(node, tables, rows.nodes[i], rows.queues[2 * i : 2 * i + 2], rows.now_ms)
            for i, node in enumerate(order)
        ]

    def queues(self, *, most_keys: int = KEYS_A_LOOK) -> list[QueueView]:
        """The shared queues, and all others in which something waits.

        Queues that no known node owns are searched for among ``most_keys`` keys of the server, if
        we have the right to; the next call goes on from there.
        """
        known, incs, leases = call_all(
            self._link,
            [
                ("HKEYS", f"{self._prefix}nodes"),
                ("HGETALL", f"{self._prefix}incs"),
                ("ZRANGE", f"{self._prefix}leases", 0, -1, "WITHSCORES"),
            ],
        )
        names = sorted(text(name) for name in known)[:MOST_NODES]
        self._search(most_keys)
        places = [(base, "") for base in self._bases]
        places += [(base, node) for node in names for base in self._bases]
        places += sorted(self._orphans.difference(places))
        rows = self._survey((), [f"{base}.{node}" if node else base for base, node in places])
        live = _live(pairs(incs), pairs(leases), rows.now_ms)
        views = [
            self._queue_view(*place, *row, rows.now_ms, live)
            for place, row in zip(places, rows.queues, strict=True)
        ]
        self._orphans &= {place for place, view in zip(places, views, strict=True) if view.length}
        return [view for view in views if not view.node or view.length]

    def claims(self) -> int:
        """Requests that nodes have taken and not finished, lost nodes included."""
        leases = self._link.call("ZRANGE", f"{self._prefix}leases", 0, -1)
        commands = [("HLEN", f"{self._prefix}claims:{text(inc)}") for inc in leases]
        return sum(call_all(self._link, commands))

    def _own_queues(self, node: str) -> tuple[str, str]:
        return prefill_queue(self._topic_name, node), decode_queue(self._topic_name, node)

    def _queue_view(
        self,
        base: str,
        node: str,
        lengths: tuple[int, ...],
        submitted: int,
        now_ms: float,
        live: set[str],
    ) -> QueueView:
        phase: Literal["prefill", "decode"] = "prefill" if base == self._bases[0] else "decode"
        return QueueView(
            name=f"{base}.{node}" if node else base,
            phase=phase,
            node=node,
            lengths=lengths,
            oldest_s=_age(submitted, now_ms),
            orphaned=bool(node) and node not in live and sum(lengths) > 0,
        )

    def _survey(self, nodes: Sequence[str], queues: Sequence[str]) -> _Rows:
        """Ask the script, some at a time, so that it does not hold Redis up."""
        rows = _Rows(0, [], [])
        for first in range(0, max(len(nodes), len(queues), 1), _AT_ONCE):
            last = first + _AT_ONCE
            _, now_ms, of_nodes, of_queues = self._link.run(
                "survey",
                {
                    "prefix": self._prefix,
                    "nodes": [_raw(name) for name in nodes[first:last]],
                    "queues": [_raw(name) for name in queues[first:last]],
                    "max_record": MAX_RECORD_BYTES,
                },
            )
            rows.nodes.extend((text(record), int(claims)) for record, claims in of_nodes)
            rows.queues.extend((tuple(lengths), int(at)) for lengths, at in of_queues)
            rows = rows._replace(now_ms=now_ms)
        return rows

    def _search(self, most_keys: int) -> None:
        """Look on for lists that have the name of a node's own queue."""
        # Both phases' names at once; a topic's name has no signs that mean something here.
        pattern = f"{self._topic_name}.[pd]*"
        for _ in range(0, most_keys, _KEYS_A_CALL):
            try:
                self._cursor, keys = self._link.call(
                    "SCAN", self._cursor, "MATCH", pattern, "COUNT", _KEYS_A_CALL, "TYPE", "list"
                )
            except NoPermissionError:  # it shows the names of other topics' keys
                return
            self._orphans |= self._places(text(key) for key in keys)
            if int(self._cursor) == 0:
                return

    def _places(self, keys: Iterable[str]) -> set[tuple[str, str]]:
        places = set()
        for key in keys:
            name = key.partition(SEPARATOR)[0]
            for base in self._bases:
                if name.startswith(f"{base}."):
                    places.add((base, name.removeprefix(f"{base}.")))
        return set(sorted(places)[: max(0, MOST_ORPHANS - len(self._orphans))])


def _node_view(
    node: str,
    tables: Sequence[Mapping[str, str]],
    row: tuple[str, int],
    queues: Sequence[tuple[tuple[int, ...], int]],
    now_ms: float,
) -> NodeView:
    states, incs, stolen, stole, leases, seen, *limits = tables
    record, claims = row
    waiting = [sum(lengths) for lengths, _ in queues]
    submitted = [at for _, at in queues if at]
    lease = leases.get(incs.get(node, ""))
    return NodeView(
        name=node,
        state=states.get(node, ""),
        lease_s=None if lease is None else (float(lease) - now_ms) / 1000,
        seen_s=(now_ms - float(seen[node])) / 1000 if node in seen else None,
        queued=sum(waiting),
        claims=claims,
        stolen=_count(stolen.get(node)),
        stole=_count(stole.get(node)),
        queued_prefill=waiting[0],
        queued_decode=waiting[1],
        oldest_s=_age(min(submitted, default=0), now_ms),
        longest=max((int(float(limit[node])) for limit in limits if node in limit), default=0),
        **own_words(record),
    )


def _live(incs: Mapping[str, str], leases: Mapping[str, str], now_ms: float) -> set[str]:
    return {node for node, inc in incs.items() if float(leases.get(inc, 0)) > now_ms}


def _count(value: str | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0


def _age(submitted_ms: float, now_ms: float) -> float | None:
    return max(0.0, (now_ms - submitted_ms) / 1000) if submitted_ms else None


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
