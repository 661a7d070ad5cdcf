"""One thread that writes a node's outputs to Redis."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgpack
from redis.exceptions import RedisError

from inferq.cluster.link import AWAY, Backoff
from inferq.cluster.placing import Placing
from inferq.cluster.topic import Fenced, Group, Hop, Outcome, Settle, Topic
from inferq.messages import FinishReason, Output, error_output
from inferq.results.pending import Pending, StoredResult
from inferq.settings import Settings

logger = logging.getLogger(__name__)

#: A stream whose reader is slow is tried again after this, seconds.
FULL_RETRY_S = 0.05
#: Requests wait once so many batches of outputs are on their way to one stream.
CONGESTED_BATCHES = 5


class Writer:
    """Collects and writes. The first output of a request and every end go at once, others within
    ``flush_s``; what arrives while a batch is being written makes up the next one.
    """

    def __init__(
        self,
        settings: Settings,
        node: str,
        topic: Topic,
        on_gone: Callable[[str], None],
        placing: Placing | None,
        number: int,
    ) -> None:
        self._node = node
        self._topic = topic
        self._on_gone = on_gone
        self._placing = placing
        self._on_fenced: Callable[[str], None] = lambda _inc: None
        self._batch = settings.scheduler_writer_batch_size
        self._flush_s = settings.cluster.flush_s
        self._inc = ""
        self._pending: dict[str, Pending] = {}
        self._unsettled: set[int] = set()
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._at_once = threading.Event()
        self._idle = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"inferq-writer-{number}", daemon=True
        )

    def start(self, on_fenced: Callable[[str], None]) -> None:
        """Start the thread."""
        self._on_fenced = on_fenced
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Write what is left, for at most this long, and end the thread."""
        if self._thread.is_alive():
            self._wake()
            self._idle.wait(timeout_s)
            self._stop.set()
            self._wake()
            self._thread.join()
        self._topic.link.close()

    def begin(self, inc: str) -> None:
        """Forget what waits: it belongs to an incarnation that is over."""
        with self._lock:
            self._inc = inc
            self._pending.clear()
            self._unsettled.clear()

    def add_output(self, stream: str, output: Output, *, at_once: bool) -> None:
        """Collect an output; any thread may call this."""
        wire = output.to_wire()
        with self._lock:
            pending = self._of(stream)
            pending.outputs.append(wire)
            at_once = at_once or len(pending.outputs) >= self._batch
        if at_once:
            self._wake()
        elif not self._work.is_set():
            self._idle.clear()
            self._work.set()

    def add_settle(
        self,
        stream: str,
        settle: Settle,
        last: Output | None = None,
        results: Sequence[StoredResult] = (),
    ) -> None:
        """Collect the end of a claim, with the output and the results that are written with it."""
        with self._lock:
            pending = self._of(stream)
            if last is not None:
                pending.outputs.append(last.to_wire())
            pending.results += results
            pending.settles.append(settle)
            self._unsettled.add(settle.claim)
        self._wake()

    def add_hop(self, stream: str, hop: Hop) -> None:
        """Collect a claim that goes on elsewhere, behind the outputs that were added before."""
        with self._lock:
            self._of(stream).hops.append(hop)
            self._unsettled.add(hop.claim)
        self._wake()

    def unsettled(self) -> frozenset[int]:
        """Claims whose end was not confirmed by Redis."""
        with self._lock:
            return frozenset(self._unsettled)

    def is_congested(self, stream: str) -> bool:
        """Whether a stream has many outputs that could not be written yet."""
        pending = self._pending.get(stream)
        return pending is not None and len(pending.outputs) > CONGESTED_BATCHES * self._batch

    def _of(self, stream: str) -> Pending:
        pending = self._pending.get(stream)
        if pending is None:
            pending = self._pending[stream] = Pending()
        return pending

    def _wake(self) -> None:
        if not self._at_once.is_set():
            self._idle.clear()
            self._at_once.set()
            self._work.set()

    def _run(self) -> None:
        backoff = Backoff(self._stop)
        while True:
            self._work.wait()
            if not self._at_once.is_set() and not self._stop.is_set():
                self._at_once.wait(self._flush_s)
            self._work.clear()
            self._at_once.clear()
            while self._write_some(backoff):
                pass
            if self._stop.is_set():
                return

    def _write_some(self, backoff: Backoff) -> bool:
        """Write one batch; False when nothing more can be written now."""
        inc, batch, retry_at = self._take()
        if not batch:
            self._rest(retry_at)
            return False
        try:
            self._emit(inc, batch)
            self._hop(inc, batch)
        except Fenced:
            self._on_fenced(inc)
            return True
        except (*AWAY, RedisError) as exc:
            logger.debug("outputs cannot be written yet: %r", exc)
            self._return(inc, batch)
            return backoff.wait()
        backoff.reset()
        self._return(inc, batch)
        return True

    def _emit(self, inc: str, batch: list[tuple[str, Pending]]) -> None:
        """Write outputs and ends; what is done leaves its piece."""
        rows = [(stream, piece) for stream, piece in batch if piece.has_outputs]
        if not rows:
            return
        outcomes = self._topic.emit(self._node, inc, [_group(*row) for row in rows])
        for (stream, piece), outcome in zip(rows, outcomes, strict=True):
            if outcome == Outcome.GONE:
                self._on_gone(stream)
            if outcome == Outcome.FULL:
                piece.retry_at = time.monotonic() + FULL_RETRY_S
            else:
                self._confirm(settle.claim for settle in piece.settles)
                piece.emitted()

    def _hop(self, inc: str, batch: list[tuple[str, Pending]]) -> None:
        """Pass claims on, unless outputs that come before are not written yet."""
        pieces = [piece for _, piece in batch if piece.hops and not piece.has_outputs]
        hops = [hop for piece in pieces for hop in piece.hops]
        if not hops:
            return
        placing, topic = self._placing, self._topic
        if placing is not None:
            hops = [placing.place_hop(topic, hop) for hop in hops]
        placed = topic.hop(self._node, inc, hops)
        self._confirm(hop.claim for hop in hops)
        for piece in pieces:
            piece.hops = []
        if placing is not None:
            placing.learn(topic, "decode", placed)

    def _confirm(self, claims: Iterable[int]) -> None:
        with self._lock:
            self._unsettled.difference_update(claims)

    def _rest(self, retry_at: float) -> None:
        if retry_at == 0.0:
            self._idle.set()
        elif not self._stop.wait(max(0.0, retry_at - time.monotonic())):
            self._work.set()

    def _take(self) -> tuple[str, list[tuple[str, Pending]], float]:
        """Up to a batch of what may be written now, or when to try again."""
        now, room = time.monotonic(), self._batch
        batch: list[tuple[str, Pending]] = []
        retry_at = 0.0
        with self._lock:
            for stream in list(self._pending):
                if room <= 0:
                    break
                pending = self._pending[stream]
                if pending.retry_at > now:
                    retry_at = min(retry_at or pending.retry_at, pending.retry_at)
                    continue
                piece = pending.cut(room)
                if pending.is_empty:
                    del self._pending[stream]
                if not piece.is_empty:
                    batch.append((stream, piece))
                    room -= max(1, len(piece.outputs))
            return self._inc, batch, retry_at

    def _return(self, inc: str, batch: list[tuple[str, Pending]]) -> None:
        """Keep what could not be written."""
        left = [(stream, piece) for stream, piece in batch if not piece.is_empty]
        if not left:
            return
        with self._lock:
            if inc == self._inc:
                for stream, piece in left:
                    self._of(stream).prepend(piece)


def _group(stream: str, piece: Pending) -> Group:
    if not piece.outputs:
        return Group("", b"", piece.settles, piece.results)
    return Group(stream, _packed(piece.outputs), piece.settles, piece.results)


def _packed(outputs: list[tuple[Any, ...]]) -> bytes:
    """The outputs as they travel; one that an engine filled with something else is an error."""
    try:
        packed: bytes = msgpack.packb(outputs)
    except (TypeError, ValueError, OverflowError):
        packed = msgpack.packb([_sound(output) for output in outputs])
    return packed


def _sound(output: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        msgpack.packb(output)
    except (TypeError, ValueError, OverflowError) as exc:
        request_id, attempt = output[:2]
        message = f"the engine produced what cannot be sent: {exc}"
        end = error_output(request_id, FinishReason.ERROR, "internal", message, attempt=attempt)
        return end.to_wire()
    return output
