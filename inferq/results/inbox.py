"""The streams of one origin in Redis: one reader thread for each."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from inferq.cluster.keys import prefix_of
from inferq.cluster.link import AWAY, Backoff, Link
from inferq.cluster.pipeline import call_all
from inferq.results.base import Inbox
from inferq.results.batches import read_entry
from inferq.settings import Settings

logger = logging.getLogger(__name__)

#: A reader asks again when nothing has come for this long, seconds.
BLOCK_S = 5.0
#: A reader that is just connecting to a Redis that does not answer ends later than this, by itself.
STOP_S = 2.0
_BEGINNING = b"0-0"


class Stream:
    """One stream: nodes write to it only while it exists, and it exists while it is kept."""

    def __init__(self, key: str, ttl_s: float) -> None:
        self.key = key
        self._ttl_ms = int(ttl_s * 1000)

    def keep(self, link: Link) -> bool:
        """Let it live on; False when it was gone and is a new one now. Raises one of AWAY."""
        if link.call("PEXPIRE", self.key, self._ttl_ms):
            return True
        call_all(link, [("XADD", self.key, "*", "new", ""), ("PEXPIRE", self.key, self._ttl_ms)])
        return False


class StreamReader:
    """Reads a stream from its beginning on, and deletes what it has read.

    After a lost connection it goes on where it was. Deleting travels with the next read.
    """

    def __init__(self, settings: Settings, stream: Stream, inbox: Inbox) -> None:
        self.stream = stream
        self._inbox = inbox
        self._most = settings.scheduler_reader_batch_size
        self._link = Link(settings, timeout_s=BLOCK_S + settings.cluster.redis_timeout_s)
        self._stopping = threading.Event()
        self._last = _BEGINNING
        self._untrimmed = False
        self._rewound = False
        self._connection: Any = None
        self._socket: socket.socket | None = None
        name = f"inferq-reader-{stream.key.rpartition(':')[2]}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End soon, whatever the thread waits for."""
        self._stopping.set()
        self._hang_up()

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended, at most so long."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def rewind(self) -> None:
        """The stream is a new one: its ids may be lower than what was read last."""
        self._rewound = True
        self._hang_up()

    def _run(self) -> None:
        backoff = Backoff(self._stopping)
        while not self._stopping.is_set():
            try:
                self._read()
                backoff.reset()
            except (*AWAY, RedisError) as exc:
                self._link.close()
                if self._stopping.is_set():
                    break
                logger.debug("%s cannot be read: %s", self.stream.key, exc)
                if not backoff.wait():
                    break
        self._link.close()

    def _read(self) -> None:
        connection = self._link.connection
        if connection is not self._connection:
            self._connection = connection
            self._socket = connection._sock  # noqa: SLF001 - the only way to end a blocking read
            if self._stopping.is_set():
                return
            if not self.stream.keep(self._link):
                self._rewound = True
        if self._rewound:
            self._rewound, self._last, self._untrimmed = False, _BEGINNING, False
        *_, answer = call_all(self._link, self._commands())
        self._untrimmed = False
        for _, entries in answer or ():
            self._deliver(entries)

    def _commands(self) -> list[tuple[Any, ...]]:
        key, block_ms = self.stream.key, int(BLOCK_S * 1000)
        read = ("XREAD", "COUNT", self._most, "BLOCK", block_ms, "STREAMS", key, self._last)
        if not self._untrimmed:
            return [read]
        return [("XTRIM", key, "MINID", _next_id(self._last)), read]

    def _deliver(self, entries: Sequence[tuple[bytes, list[bytes]]]) -> None:
        for entry_id, fields in entries:
            for output in read_entry(fields):
                try:
                    self._inbox.deliver(output)
                except Exception:  # one request's trouble is not the others'
                    logger.exception("an output of %s could not be delivered", output.request_id)
            self._last, self._untrimmed = entry_id, True

    def _hang_up(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it is closed already
                # Under TLS its own method would drop the TLS object while the reader is in it.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class StreamInbox:
    """Passes what arrives in the streams of an origin on to its ledger."""

    def __init__(self, settings: Settings, origin: str, inbox: Inbox) -> None:
        prefix, ttl_s = prefix_of(settings.scheduler_topic), settings.cluster.origin_ttl_s
        self.keep_every_s = ttl_s / 3
        self._readers = [
            StreamReader(settings, Stream(f"{prefix}out:{origin}:{shard}", ttl_s), inbox)
            for shard in range(settings.scheduler_reader_parallel)
        ]

    def keep(self, link: Link) -> None:
        """Let the streams live on, and make those that are gone. Raises one of AWAY."""
        for reader in self._readers:
            if not reader.stream.keep(link):
                reader.rewind()

    def start(self) -> None:
        """Begin to read."""
        for reader in self._readers:
            reader.start()

    def stop(self) -> None:
        """Read no more."""
        for reader in self._readers:
            reader.stop()
        gives_up_at = time.monotonic() + STOP_S
        for reader in self._readers:
            reader.join(max(0.0, gives_up_at - time.monotonic()))

    def discard(self, link: Link) -> None:
        """Delete the streams: nodes stop what they still compute for them. Raises one of AWAY."""
        link.call("UNLINK", *(reader.stream.key for reader in self._readers))


def _next_id(entry_id: bytes) -> bytes:
    milliseconds, _, number = entry_id.partition(b"-")
    return b"%b-%d" % (milliseconds, int(number) + 1)
