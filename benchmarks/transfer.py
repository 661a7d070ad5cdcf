"""KV caches from process to process, beside a bare copy of the same bytes.

Each line has medians of several runs, in which both sides take turns, with two processes:

- ``transfer_memfd``: a fetch by descriptor, from the request to verified bytes that the receiver
  can use, beside asking a bare unix socket for a memfd of the same bytes and copying them out.
- ``transfer_memfd_with_offer``: the same and the sender's part before it, which is allocating the
  memory, filling it and its checksum, beside allocating a memfd and copying into it.
- ``transfer_tcp``: a fetch over TCP on loopback, beside connecting a bare TCP socket and receiving
  the same number of bytes into fresh memory.

The bare copies verify nothing and prove nothing. ``python -m benchmarks.transfer``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

from benchmarks.measure import emit
from inferq.settings import TransferSettings
from inferq.transfer.buffers import allocate
from inferq.transfer.sockets import SocketTransfer

MIB = 2**20
TARGET = 0.7
_PIECE = 8 * MIB


class Bare:
    """Serves bytes without any protocol: a descriptor on a unix socket, a stream on TCP."""

    def __init__(self) -> None:
        self._fd = -1
        self._data = memoryview(b"")
        unix, tcp = socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))
        unix.bind("")  # Linux picks an abstract name
        unix.listen()
        self.unix = unix.getsockname().decode("latin-1")
        self.tcp: int = tcp.getsockname()[1]
        for work, listener in ((self._give_descriptor, unix), (self._give_bytes, tcp)):
            threading.Thread(target=_serve, args=(listener, work), daemon=True).start()

    def prepare(self, data: memoryview) -> float:
        """Copy the bytes into a memfd; how long it took, seconds."""
        started = time.perf_counter()
        fd = os.memfd_create("bare")
        os.ftruncate(fd, len(data))
        with mmap.mmap(fd, len(data)) as memory:
            memory[:] = data
        took_s = time.perf_counter() - started
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._data = fd, data
        return took_s

    def _give_descriptor(self, sock: socket.socket) -> None:
        socket.send_fds(sock, [b"x"], [self._fd])

    def _give_bytes(self, sock: socket.socket) -> None:
        sock.sendall(self._data)


def _serve(listener: socket.socket, work: Any) -> None:
    while True:
        sock, _ = listener.accept()
        with sock:
            work(sock)


def copy_out(unix: str, nbytes: int) -> float:
    """Get the memfd and copy it into memory of this process; seconds."""
    started = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(unix.encode("latin-1"))
        _, [fd], _, _ = socket.recv_fds(sock, 1, 1)
    target = allocate(nbytes)
    with mmap.mmap(fd, nbytes, prot=mmap.PROT_READ) as memory, memoryview(memory) as view:
        target[:] = view
    os.close(fd)
    return time.perf_counter() - started


def receive(port: int, nbytes: int) -> float:
    """Receive so many bytes into memory of this process; seconds."""
    started = time.perf_counter()
    target = allocate(nbytes)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        at = 0
        while at < nbytes:
            at += sock.recv_into(target[at : at + _PIECE])
    return time.perf_counter() - started


async def serve_child() -> None:
    """The sender: does what each line of stdin says."""
    transfer, bare = side(), Bare()
    await transfer.start()
    source = memoryview(b"")
    while line := await asyncio.to_thread(sys.stdin.readline):
        nbytes = json.loads(line)["nbytes"]
        if len(source) != nbytes:
            source = memoryview(os.urandom(nbytes))

        async def fill(memory: memoryview, data: memoryview = source) -> None:
            await asyncio.to_thread(memory.__setitem__, slice(None), data)

        bare_s = bare.prepare(source)
        started = time.perf_counter()
        offer = await transfer.offer("benchmark", nbytes, fill)
        offer_s = time.perf_counter() - started
        words = {"kv": offer.kv, "offer_s": offer_s, "bare_s": bare_s}
        words |= {"unix": bare.unix, "tcp": bare.tcp}
        sys.stdout.write(json.dumps(words) + "\n")
        sys.stdout.flush()
    await transfer.stop()


def side() -> SocketTransfer:
    """Either side's transfer."""
    return SocketTransfer(TransferSettings(listen="127.0.0.1:0"))


class Times:
    """Seconds of every run, ours and bare."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.bare: list[float] = []

    def report(self, name: str, nbytes: int) -> None:
        """One line."""
        ours, bare = (nbytes / 1e6 / statistics.median(t) for t in (self.ours, self.bare))
        emit(
            name,
            mib=nbytes // MIB,
            mb_per_s=ours,
            bare_mb_per_s=bare,
            ratio=ours / bare,
            target=TARGET,
            runs=len(self.ours),
        )


async def measure(child: subprocess.Popen[str], nbytes: int, runs: int) -> None:
    """One size, by both protocols."""
    assert child.stdin is not None
    assert child.stdout is not None
    transfer = side()
    await transfer.start()
    memfd, hop, tcp = Times(), Times(), Times()
    for number in range(2 * (runs + 1)):
        child.stdin.write(json.dumps({"nbytes": nbytes}) + "\n")
        child.stdin.flush()
        words = json.loads(await asyncio.to_thread(child.stdout.readline))
        protocol = ("memfd", "tcp")[number % 2]
        started = time.perf_counter()
        fetched = await transfer.fetch(words["kv"], [protocol])
        took_s = time.perf_counter() - started
        del fetched
        if protocol == "memfd":
            bare_s = await asyncio.to_thread(copy_out, words["unix"], nbytes)
        else:
            bare_s = await asyncio.to_thread(receive, words["tcp"], nbytes)
        if number < 2:
            continue  # the first of each pays for threads and pages
        times = memfd if protocol == "memfd" else tcp
        times.ours.append(took_s)
        times.bare.append(bare_s)
        if protocol == "memfd":
            hop.ours.append(took_s + words["offer_s"])
            hop.bare.append(bare_s + words["bare_s"])
    await transfer.stop()
    memfd.report("transfer_memfd", nbytes)
    hop.report("transfer_memfd_with_offer", nbytes)
    tcp.report("transfer_tcp", nbytes)


def main() -> None:
    """Start the sender and measure every size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 16, 64], help="in MiB")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        asyncio.run(serve_child())
        return
    command = [sys.executable, "-m", "benchmarks.transfer", "--child"]
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        for size in options.sizes:
            asyncio.run(measure(child, size * MIB, options.runs))
        assert child.stdin is not None
        child.stdin.close()


if __name__ == "__main__":
    main()
