"""CPU of several processes, and commands of Redis, over a block of code."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import redis

#: What only a client sends; everything else a script may have called.
SENT_BY_CLIENTS = frozenset(
    {"evalsha", "eval", "xread", "xtrim", "blmove", "blpop", "brpop", "multi", "exec"}
)
#: What this module asks itself.
_OURS = frozenset({"info", "config|resetstat", "client|setinfo", "client|setname", "ping", "auth"})
#: How the end of a baseline is looked for.
_LOOKS = frozenset({"llen", "hlen"})


class Costs:
    """Wall and CPU seconds, and numbers of commands, of a block.

    ``producer_s`` is the CPU of this process, ``nodes_s`` that of all nodes together.
    """

    wall_s = 0.0
    producer_s = 0.0
    nodes_s = 0.0
    redis_s = 0.0
    #: Commands that clients sent; and with those that scripts called.
    sent = 0
    total = 0
    by_name: dict[str, int]

    @property
    def cpu_s(self) -> float:
        """Of all processes together."""
        return self.producer_s + self.nodes_s + self.redis_s


class Meter:
    """Measures the processes of one benchmark. ``scripted``: clients run scripts."""

    def __init__(self, url: str, nodes: Sequence[int], *, scripted: bool = True) -> None:
        self._redis: redis.Redis = redis.Redis.from_url(url)
        server = int(self._info("server")["process_id"])
        self._own = psutil.Process()
        self._server = psutil.Process(server)
        self._nodes = [psutil.Process(pid) for pid in nodes]
        self._scripted = scripted

    @contextmanager
    def measured(self) -> Iterator[Costs]:
        """Measure the block."""
        costs = Costs()
        before, cpu, wall = self._commands(), self._cpu_s(), time.perf_counter()
        yield costs
        costs.wall_s = time.perf_counter() - wall
        spent = [after - at for after, at in zip(self._cpu_s(), cpu, strict=True)]
        costs.producer_s, costs.redis_s, costs.nodes_s = spent[0], spent[1], sum(spent[2:])
        after = self._commands()
        costs.by_name = {
            name: count - before.get(name, 0)
            for name, count in after.items()
            if count > before.get(name, 0) and (self._scripted or name not in _LOOKS)
        }
        costs.total = sum(costs.by_name.values())
        sent = (n for k, n in costs.by_name.items() if k in SENT_BY_CLIENTS)
        costs.sent = sum(sent) if self._scripted else costs.total

    def close(self) -> None:
        """Drop the connection."""
        self._redis.close()

    def _info(self, section: str) -> dict[str, Any]:
        info: Any = self._redis.info(section)
        return dict(info)

    def _commands(self) -> dict[str, int]:
        stats = self._info("commandstats")
        counts = {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}
        return {name: count for name, count in counts.items() if name not in _OURS}

    def _cpu_s(self) -> list[float]:
        times = [p.cpu_times() for p in (self._own, self._server, *self._nodes)]
        return [time.user + time.system for time in times]
