"""What a node has done, for its record, pages, placement and metrics."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from inferq.messages.headers import SIZE_HEADER
from inferq.worker.histogram import Distribution, Histogram, Tally
from inferq.worker.tracer import current_context

if TYPE_CHECKING:
    from inferq.cluster.rows import Taken
    from inferq.messages import Output
    from inferq.tasks.call import Call

#: Latencies of so many requests make up the percentiles.
WINDOW = 512
#: Rates are means over about this long, seconds: tokens count when their request ends.
RATE_S = 30.0
#: Weight of the newest measurement in a moving average of rates.
NEWEST = 0.3

#: Bounds of histograms, seconds: of waiting, of whole requests, of one token.
WAITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
REQUESTS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 900)
TOKENS_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1)

_ENDS = {
    "stop": "finished",
    "length": "finished",
    "cancelled": "cancelled",
    "expired": "expired",
}


class Transfers(NamedTuple):
    """KV caches that arrived here by one protocol, their bytes, and the seconds they took."""

    caches: float
    nbytes: float
    seconds: float


class Totals(NamedTuple):
    """What was counted since the process began.

    ``ends``: requests by how and why they ended. ``taken``: by where from. ``letters``: dead
    letters by reason. ``recovered``: of lost nodes. ``transfers``: by protocol.
    """

    ends: dict[tuple[str, str], float]
    taken: dict[str, float]
    letters: dict[str, float]
    transfers: dict[str, Transfers]
    queue_wait: Distribution
    first_token: Distribution
    per_token: Distribution
    whole: Distribution
    prompt_tokens: int
    output_tokens: int
    retried: int
    recoveries: int
    recovered: int
    lost_leases: int
    missed_renewals: int


class Stats:
    """Counts and times. For any thread.

    ``prefill_tokens_per_s``: how fast prompts are prefilled, measured over the time in which at
    least one was; 0 before the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ttft_s: deque[float] = deque(maxlen=WINDOW)
        self._tpot_s: deque[float] = deque(maxlen=WINDOW)
        self._tokens = 0
        #: When how many tokens had been made, over the last RATE_S seconds.
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._ends: dict[str, int] = {}
        self._prefilled_until = 0.0
        self.prefill_tokens_per_s = 0.0
        self._ended = Tally(
            [
                ("finished", "stop"),
                ("finished", "length"),
                ("failed", "internal"),
                ("cancelled", "cancelled"),
                ("expired", "expired"),
            ],
            ("failed", "other"),
        )
        self._taken = Tally(["queue", "stolen"], "other")
        self._letters = Tally(["attempts", "malformed", "duplicate", "rejected"], "other")
        self._transfers = [Tally[str]([], "other") for _ in Transfers._fields]
        self._queue_wait, self._first_token = Histogram(WAITS_S), Histogram(WAITS_S)
        self._per_token, self._whole = Histogram(TOKENS_S), Histogram(REQUESTS_S)
        self._prompt_tokens = self._output_tokens = self._retried = 0
        self._recoveries = self._recovered = self._lost_leases = self._missed_renewals = 0

    def took(self, taken: Sequence[Taken]) -> None:
        """Messages were claimed."""
        stolen = sum(1 for message in taken if message.source)
        retried = sum(1 for message in taken if message.attempt)
        with self._lock:
            self._taken.add("stolen", stolen)
            self._taken.add("queue", len(taken) - stolen)
            self._retried += retried

    def began(self, call: Call, prefill_s: float) -> None:
        """A request has its first token here, ``prefill_s`` after it was started."""
        now = time.monotonic()
        tokens = _prompt_tokens() or len(call.request.prompt_token_ids or call.request.prompt or ())
        with self._lock:
            if call.before is None:
                self._ttft_s.append(call.queue_s + prefill_s)
                self._queue_wait.observe(call.queue_s)
                self._first_token.observe(call.queue_s + prefill_s)
                self._prompt_tokens += tokens
                self._note_rate(tokens, min(prefill_s, now - self._prefilled_until))
                self._prefilled_until = now
            elif call.before.crossing is not None and call.before.crossing.protocol:
                crossing = call.before.crossing
                amounts = Transfers(1, crossing.nbytes, crossing.seconds)
                for tally, amount in zip(self._transfers, amounts, strict=True):
                    tally.add(crossing.protocol, amount)

    def _note_rate(self, tokens: int, busy_s: float) -> None:
        if tokens <= 0 or busy_s <= 0:
            return
        rate = tokens / busy_s
        before = self.prefill_tokens_per_s or rate
        self.prefill_tokens_per_s = before + NEWEST * (rate - before)

    def left(self, tokens: int, whole_s: float | None) -> None:
        """A request has left the engine, which made ``tokens`` of its answer.

        ``whole_s``: since it was submitted, if its answer is whole now.
        """
        with self._lock:
            self._output_tokens += tokens
            if whole_s is not None:
                self._whole.observe(whole_s)

    def ended(self, last: Output, tokens: int) -> None:
        """A request has ended here."""
        reason = last.finish_reason or "error"
        end = _ENDS.get(reason, "failed")
        cause = reason if last.error is None else last.error.code
        with self._lock:
            self._tokens += tokens
            self._ends[reason] = self._ends.get(reason, 0) + 1
            self._ended.add((end, cause))
            if last.timings is not None and tokens > 1 and last.error is None:
                per_token_s = last.timings.decode_s / (tokens - 1)
                self._tpot_s.append(per_token_s)
                self._per_token.observe(per_token_s)

    def buried(self, reason: str, letters: int = 1) -> None:
        """This node has made dead letters."""
        with self._lock:
            self._letters.add(reason, letters)

    def recovered(self, returned: int, dead: int) -> None:
        """This node has queued again what a lost one had, or made dead letters of it."""
        with self._lock:
            self._recoveries += 1
            self._recovered += returned
            self._letters.add("attempts", dead)

    def missed_renewal(self) -> None:
        """The lease could not be renewed when it was due."""
        with self._lock:
            self._missed_renewals += 1

    def lost_lease(self) -> None:
        """The lease is over: all that was claimed runs elsewhere."""
        with self._lock:
            self._lost_leases += 1

    def read(self) -> dict[str, Any]:
        """The numbers of this moment."""
        now = time.monotonic()
        with self._lock:
            rate = self._rate(now)
            ttft, tpot = sorted(self._ttft_s), sorted(self._tpot_s)
            return {
                "ended": dict(self._ends),
                "tokens_per_s": round(rate, 1),
                "prefill_tokens_per_s": round(self.prefill_tokens_per_s, 1),
                "ttft_ms": _percentiles(ttft),
                "tpot_ms": _percentiles(tpot),
            }

    def _rate(self, now: float) -> float:
        """Tokens a second, lately."""
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= now - RATE_S:
            marks.popleft()
        since, tokens = marks[0]
        if now - marks[-1][0] >= RATE_S / WINDOW:
            marks.append((now, self._tokens))
        return (self._tokens - tokens) / max(1.0, now - since)

    def totals(self) -> Totals:
        """All that was counted since the process began."""
        with self._lock:
            caches, nbytes, seconds = (tally.read() for tally in self._transfers)
            return Totals(
                ends=self._ended.read(),
                taken=self._taken.read(),
                letters=self._letters.read(),
                transfers={
                    name: Transfers(caches[name], nbytes[name], seconds[name]) for name in caches
                },
                queue_wait=self._queue_wait.read(),
                first_token=self._first_token.read(),
                per_token=self._per_token.read(),
                whole=self._whole.read(),
                prompt_tokens=self._prompt_tokens,
                output_tokens=self._output_tokens,
                retried=self._retried,
                recoveries=self._recoveries,
                recovered=self._recovered,
                lost_leases=self._lost_leases,
                missed_renewals=self._missed_renewals,
            )


def _prompt_tokens() -> int:
    """Length of the prompt of the request that runs here, as the intake has measured it."""
    context = current_context.get()
    size = context.get(SIZE_HEADER) if context is not None else None
    return int(size[0]) if isinstance(size, list) and size and type(size[0]) is int else 0


def _percentiles(ordered: list[float]) -> list[float]:
    """The 50th and the 99th, milliseconds; nothing before there are any."""
    if not ordered:
        return []
    return [round(1000 * ordered[int(share * (len(ordered) - 1))], 2) for share in (0.5, 0.99)]
