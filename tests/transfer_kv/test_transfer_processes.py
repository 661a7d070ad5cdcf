"""Real processes: what crosses, and what is left when one of them is killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inferq.errors import KvLost
from inferq.transfer import Transfer
from tests.proxy import Proxy
from tests.support import LONG_S
from tests.transfer_kv.kinds import noise, run, sockets, until

ROOT = Path(__file__).parents[2]
NBYTES = 40_000_000


class Node:
    """A child process that runs tests/transfer_kv/node.py."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.transfer_kv.node", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        words: dict[str, Any] = json.loads(self.process.stdout.readline())
        return words

    def tell(self, **words: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def node(*arguments: str) -> Iterator[Node]:
    child = Node(*arguments)
    try:
        yield child
    finally:
        child.kill()
        for pipe in (child.process.stdin, child.process.stdout):
            assert pipe is not None
            pipe.close()


def shared_bytes() -> int:
    """Memory of memfds and shared mappings on this machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this machine does not tell its shared memory")


async def with_receiver(check: Any) -> None:
    receiver: Transfer = sockets(timeout_s=LONG_S)
    await receiver.start()
    try:
        await check(receiver)
    finally:
        await receiver.stop()


@pytest.mark.parametrize("kind", ["memfd", "tcp"])
def test_a_cache_crosses_from_process_to_process(kind: str) -> None:
    async def check(receiver: Transfer) -> None:
        with node("send", str(NBYTES)) as sender:
            kv = sender.hear()["kv"]
            fetched = await receiver.fetch(kv, [kind])
            assert fetched.protocol == kind
            assert fetched.data == noise(NBYTES)
            assert sender.hear() == {"kept": 0}
            sender.kill()
            assert fetched.data == noise(NBYTES)

    run(lambda: with_receiver(check))


@pytest.mark.parametrize("kind", ["memfd", "tcp"])
def test_the_cache_of_a_killed_sender_is_lost_at_once(kind: str) -> None:
    async def check(receiver: Transfer) -> None:
        with node("send", str(NBYTES)) as sender:
            kv = sender.hear()["kv"]
            sender.kill()
            started = time.monotonic()
            with pytest.raises(KvLost):
                await receiver.fetch(kv, [kind])
            assert time.monotonic() - started < LONG_S / 2

    run(lambda: with_receiver(check))


def test_a_sender_killed_in_the_middle_is_noticed_without_waiting() -> None:
    async def check(receiver: Transfer) -> None:
        with node("send", str(NBYTES)) as sender:
            kv = sender.hear()["kv"]
            with Proxy(int(kv["tcp"].rpartition(":")[2])) as proxy:
                proxy.deafen()
                via = {**kv, "tcp": f"127.0.0.1:{proxy.port}"}
                fetching = asyncio.create_task(receiver.fetch(via, ["tcp"]))
                await until(lambda: proxy.connections == 1)
                sender.kill()
                proxy.mend()
                started = time.monotonic()
                with pytest.raises(KvLost):
                    await fetching
                assert time.monotonic() - started < LONG_S / 2

    run(lambda: with_receiver(check))


def test_a_receiver_killed_in_the_middle_leaves_the_cache_to_another() -> None:
    async def check(receiver: Transfer) -> None:
        with node("send", str(NBYTES)) as sender, node("receive") as first:
            kv = sender.hear()["kv"]
            with Proxy(int(kv["tcp"].rpartition(":")[2])) as proxy:
                proxy.deafen()
                first.tell(kv={**kv, "tcp": f"127.0.0.1:{proxy.port}"}, protocols=["tcp"])
                assert first.hear() == {"fetching": True}
                await until(lambda: proxy.connections == 1)
                first.kill()
            fetched = await receiver.fetch(kv, ["tcp"])
            assert fetched.data == noise(NBYTES)
            assert sender.hear() == {"kept": 0}

    run(lambda: with_receiver(check))


def test_a_killed_sender_leaves_no_memory_behind() -> None:
    with node("send", "200000000") as sender:
        sender.hear()
        held = shared_bytes()
        sender.kill()
        assert held - shared_bytes() > 100_000_000
