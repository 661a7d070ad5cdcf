"""Real servers and real worker processes, and what a test does to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from inferq import Client, Settings
from tests.faults.engine import (
    BLOCKS,
    FAMILY,
    JOURNAL,
    MEET_S,
    MODEL_LEN,
    PROTOCOLS,
    SLOTS,
)
from tests.faults.journal import Entry, Journal
from tests.faults.mortal_redis import RedisServer, free_port
from tests.faults.processes import Command, Fork, Process
from tests.support import LONG_S, wait_until

__all__ = [
    "DECODE_QUEUE",
    "LEASE_S",
    "PREFIX",
    "QUEUE",
    "SHORT_LEASE_S",
    "TOPIC",
    "Cluster",
    "free_port",
    "frozen",
]

ENGINE = "tests.faults.engine:factory"
TOPIC = "faults"
PREFIX = f"inferq:{TOPIC}:"
QUEUE = f"{TOPIC}.prefill"
DECODE_QUEUE = f"{TOPIC}.decode"
#: Nodes of a busy machine keep it.
LEASE_S = 3.0
#: For tests that wait until it is over. A busy machine may keep a process waiting as long as this.
SHORT_LEASE_S = 1.0


class Cluster:
    """One topic: a server, nodes and producers, all ended with the test.

    ``family``: how its engines hand off.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lease_s: float = LEASE_S,
        durable: bool = False,
        family: str = "sequential",
        cluster: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.server = RedisServer(folder / "redis", durable=durable)
        self.redis = redis.Redis(port=self.server.port, socket_timeout=LONG_S)
        self._journal_path = folder / "journal"
        self._journal = Journal(self._journal_path)
        self._given = {
            "scheduler_name": "global",
            "scheduler_topic": TOPIC,
            "scheduler_writer_parallel": 2,
            "scheduler_reader_parallel": 2,
            "cluster": {"lease_ttl_s": lease_s, **(cluster or {})},
            **settings,
        }
        self.family = family
        self.lease_s = lease_s
        self.processes: list[Process] = []

    def settings(self, *, url: str = "", **more: Any) -> Settings:
        """Settings of a producer."""
        return Settings(**{**self._given, "scheduler_url": url or self.server.url, **more})

    def client(self, *, url: str = "", node: str = "", **more: Any) -> Client:
        """A producer in this process."""
        return Client(self.settings(url=url, **more), node=node)

    def node(
        self,
        name: str,
        *,
        url: str = "",
        slots: int = 64,
        blocks: int = 4096,
        model_len: int = 8192,
        role: str = "mixed",
        protocols: str = "",
        meet_s: float = 20.0,
        transfer: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
        launcher: Sequence[str] = (),
    ) -> Process:
        """Start a node: ``celery -A inferq worker``; ``ready`` waits for it.

        ``protocols``: by what its KV caches may be fetched; any if empty. ``meet_s``: how long a
        half waits for the other one, seconds. ``transfer``: settings of this node. ``launcher``:
        what to start Python with instead of ``-m celery``.
        """
        given = {**self._given, "scheduler_url": url or self.server.url, "role": role}
        given["transfer"] = {**given.get("transfer", {}), **(transfer or {})}
        env = {
            **_as_environment(given),
            "INFERQ_ENGINE": ENGINE,
            JOURNAL: str(self._journal_path),
            SLOTS: str(slots),
            BLOCKS: str(blocks),
            MODEL_LEN: str(model_len),
            FAMILY: self.family,
            PROTOCOLS: protocols,
            MEET_S: str(meet_s),
        }
        full_name = f"{name}@test"
        arguments = ["-A", "inferq", "worker", "-n", full_name, "-l", "INFO", *options]
        log = self.folder / f"{name}.log"
        node: Process
        if launcher:
            node = Command(full_name, [*launcher, *arguments], env, log)
        else:
            node = Fork(full_name, arguments, env, log)
        self.processes.append(node)
        return node

    def ready(self, *nodes: Process) -> None:
        """Wait until nodes have joined and take requests."""
        for node in nodes:
            self.wait(lambda node=node: self.is_ready(node) or not node.is_alive)
            assert node.is_alive, node.tail()

    def start(self, *names: str, **options: Any) -> list[Process]:
        """Start nodes side by side and wait until all are ready."""
        nodes = [self.node(name, **options) for name in names]
        self.ready(*nodes)
        return nodes

    def producer(self, *, name: str = "producer", url: str = "", **job: Any) -> Process:
        """Start a producer process; see ``tests.faults.producer`` for its job."""
        settings = {**self._given, "scheduler_url": url or self.server.url}
        job = {**job, "settings": settings}
        command = ["-m", "tests.faults.producer", json.dumps(job)]
        process = Command(name, command, {}, self.folder / f"{name}.log")
        self.processes.append(process)
        return process

    def state_of(self, node: Process) -> str:
        """What a node has announced."""
        state: Any = self.redis.hget(f"{PREFIX}states", node.name)
        return state.decode() if state else ""

    def is_ready(self, node: Process) -> bool:
        """Whether this process, not one before it that had the same name, takes requests."""
        record: Any = self.redis.hget(f"{PREFIX}nodes", node.name)
        is_its_own = record is not None and json.loads(record)["pid"] == node.pid
        return is_its_own and self.state_of(node) == "ready"

    def incarnation(self, node: Process) -> str:
        """The fencing token of a node; empty when it has none."""
        inc: Any = self.redis.hget(f"{PREFIX}incs", node.name)
        return inc.decode() if inc else ""

    def claims_of(self, node: Process) -> int:
        """How many requests a node has claimed."""
        count: Any = self.redis.hlen(f"{PREFIX}claims:{self.incarnation(node)}")
        return int(count)

    def waiting(self, queue: str = QUEUE) -> int:
        """How many requests wait in a queue, whatever their priority."""
        names = [queue, *(f"{queue}\x06\x16{step}" for step in (3, 6, 9))]
        return sum(int(self.redis.llen(name)) for name in names)

    def waiting_anywhere(self, queue: str) -> int:
        """How many requests wait in a shared queue and in those that nodes have of that phase."""
        names = [key.decode() for key in self.redis.scan_iter(f"{queue}*", _type="list")]
        return sum(int(self.redis.llen(name)) for name in names)

    def dead(self) -> list[dict[str, str]]:
        """The dead letters, without their messages."""
        letters: Any = self.redis.xrange(f"{PREFIX}dead")
        return [
            {k.decode(): v.decode("utf-8", "replace") for k, v in fields.items() if k != b"raw"}
            for _, fields in letters
        ]

    def journal(self, what: str = "") -> list[Entry]:
        """What the engines did."""
        return [entry for entry in self._journal.read() if what in ("", entry.what)]

    def record(self, node: Process) -> dict[str, Any]:
        """What a node says of itself."""
        record: Any = self.redis.hget(f"{PREFIX}nodes", node.name)
        return dict(json.loads(record)) if record is not None else {}

    def renewed(self, node: Process) -> float:
        """When a node renewed its lease, ms of Redis' clock."""
        return float(self.redis.zscore(f"{PREFIX}seen", node.name) or 0.0)

    def leftovers(self) -> dict[str, Any]:
        """What is not empty though no request is live: queues, claims, and what is counted."""
        found: dict[str, Any] = {}
        for queue in (QUEUE, DECODE_QUEUE):
            if self.waiting_anywhere(queue):
                found[queue] = self.waiting_anywhere(queue)
            work = self.redis.hgetall(f"{PREFIX}work:{queue}")
            if any(map(int, work.values())):
                found[f"work:{queue}"] = work
        for kind in ("claims", "pledged", "holding", "load"):
            for key in self.redis.scan_iter(f"{PREFIX}{kind}:*"):
                found[key.decode()] = self.redis.type(key)
        return found

    def check_clean(self, *nodes: Process) -> None:
        """No request is live any more: nothing may be left of any, at these nodes or in Redis."""
        # A record may be older than what it is to be about: the second from now is not.
        for _ in range(2):
            before = [(node, self.renewed(node)) for node in nodes]
            for node, at_ms in before:
                self.wait(lambda node=node, at_ms=at_ms: self.renewed(node) > at_ms)
        self.wait(lambda: all(map(self.is_empty, nodes)))
        self.wait(lambda: not self.leftovers())
        assert self.journal("corrupt") == []
        assert self.dead() == []

    def is_empty(self, node: Process) -> bool:
        """Whether a node says that its engine runs nothing and that it keeps no KV cache."""
        record = self.record(node)
        if "total_blocks" not in record:  # its engine has just started
            return False
        taken = record["total_blocks"] - record["free_blocks"]
        return not (taken or record["kept_kv"] or record["running"])

    def execute(self, command: str) -> Any:
        """Have Redis do something, said as in its command line."""
        return self.redis.execute_command(*command.split())  # type: ignore[no-untyped-call]

    def starts(self, what: str = "start") -> dict[str, int]:
        """How often each request was started, or something else was done with it, on any node."""
        counts: dict[str, int] = {}
        for entry in self.journal(what):
            counts[entry.request_id] = counts.get(entry.request_id, 0) + 1
        return counts

    def wait(self, condition: Any) -> None:
        """Wait until something is so; says what the processes wrote when it is not."""
        try:
            wait_until(condition)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.report()}") from None

    def report(self) -> str:
        """What nodes say of themselves, and the ends of all logs."""
        said = "\n".join(f"{p.name}: {self.record(p)}" for p in self.processes)
        logs = "\n".join(f"--- {p.log_path.name}\n{p.tail()}" for p in self.processes)
        return f"{said}\n{logs}"

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            process.kill()
        self.redis.close()
        self._journal.close()
        self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def frozen(thing: RedisServer | Process) -> Iterator[None]:
    """It stands still inside the block."""
    thing.freeze()
    try:
        yield
    finally:
        thing.thaw()


def _as_environment(values: Mapping[str, Any], prefix: str = "INFERQ_") -> dict[str, str]:
    env: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name.upper()}"
        if isinstance(value, Mapping):
            env |= _as_environment(value, f"{key}__")
        else:
            env[key] = str(value)
    return env
