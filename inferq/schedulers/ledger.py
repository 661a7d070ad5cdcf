"""The requests of one origin: which are live, and until when."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from inferq.errors import DuplicateRequest, UnknownRequest
from inferq.messages import FinishReason, Output, Request, error_output
from inferq.results.reply import Reply

_CODES = {FinishReason.ERROR: "worker_lost"}


class Admitted(NamedTuple):
    """Which requests of a put are held from now on, and which found no place."""

    replies: list[Reply]
    rejected: list[Request]


class Held(NamedTuple):
    """A request that has not ended, or whose end was not read."""

    reply: Reply
    #: time.monotonic() at which it expires
    expires_at: float
    #: Of a put whose outcome is not known; empty otherwise.
    token: str = ""


class Ledger:
    """An Inbox that bounds how many requests are held, and for how long.

    A request is held from the put until its end was read, it was cancelled, or it expired. One
    in doubt (whether its put reached the nodes is not known) may be put again.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size if max_size > 0 else None
        self._held: dict[str, Held] = {}
        #: (expires_at, id); entries of requests that are gone are skipped, and swept when
        #: they are the majority.
        self._deadlines: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._held

    @property
    def unread(self) -> int:
        """Requests that have ended and whose end was not read."""
        with self._lock:
            return sum(1 for held in self._held.values() if held.reply.end is not None)

    def admit(self, requests: Sequence[Request]) -> Admitted:
        """Hold as many of the requests, in order, as the bound allows.

        Raises:
            DuplicateRequest: an id is held already or comes twice; none is held.
        """
        with self._lock:
            self._check_ids(requests)
            room = len(requests)
            if self._max_size is not None:
                room = max(0, self._max_size - len(self._held))
            replies = [self._hold(request) for request in requests[:room]]
            return Admitted(replies, list(requests[room:]))

    def doubt(self, request_ids: Iterable[str], token: str) -> None:
        """The put with this token may or may not have reached the nodes; empty: it has."""
        with self._lock:
            for request_id in request_ids:
                if held := self._held.get(request_id):
                    self._held[request_id] = held._replace(token=token)

    def token_of(self, request_id: str) -> str:
        """The token of a request in doubt; empty for any other."""
        held = self._held.get(request_id)
        return held.token if held is not None else ""

    def deliver(self, output: Output) -> bool:
        """Pass an output on to its reply; False when the request is not held."""
        held = self._held.get(output.request_id)
        return held is not None and held.reply.push(output)

    def find(self, request_id: str) -> Reply:
        """The reply of a held request. Raises UnknownRequest."""
        held = self._held.get(request_id)
        if held is None:
            raise UnknownRequest(request_id)
        return held.reply

    def forget(self, request_id: str) -> None:
        """Stop holding a request, whatever became of it."""
        with self._lock:
            self._held.pop(request_id, None)
            self._sweep()

    def cancel(self, request_id: str, reason: str) -> bool:
        """End a request as cancelled; False when it had ended. Raises UnknownRequest."""
        with self._lock:
            held = self._held.get(request_id)
            if held is None:
                raise UnknownRequest(request_id)
            if held.reply.end is not None:
                return False
            del self._held[request_id]
            self._sweep()
        end = error_output(request_id, FinishReason.CANCELLED, "cancelled", reason)
        return held.reply.push(end)

    def clear(self, reason: str, kind: FinishReason = FinishReason.CANCELLED) -> list[str]:
        """End all requests as ``kind``; returns the ids of those that had not ended."""
        with self._lock:
            gone, self._held = self._held, {}
            self._deadlines.clear()
        live = [request_id for request_id, held in gone.items() if held.reply.end is None]
        for request_id in live:
            end = error_output(request_id, kind, _CODES.get(kind, kind.value), reason)
            gone[request_id].reply.push(end)
        return live

    def expire(self) -> list[str]:
        """End all requests whose time is over, read or not; returns their ids."""
        now = time.monotonic()
        with self._lock:
            expired = self._pop_due(now)
        for request_id, held in expired:
            state = "before its end was read" if held.reply.end else "before it ended"
            held.reply.drop(
                error_output(
                    request_id, FinishReason.EXPIRED, "expired", f"its time was over {state}"
                )
            )
        return [request_id for request_id, _ in expired]

    def next_deadline(self) -> float | None:
        """When the next request may expire, in time.monotonic()."""
        with self._lock:
            return self._deadlines[0][0] if self._deadlines else None

    def _check_ids(self, requests: Iterable[Request]) -> None:
        seen = set()
        for request in requests:
            held = self._held.get(request.request_id)
            if (held is not None and not held.token) or request.request_id in seen:
                raise DuplicateRequest(request.request_id)
            seen.add(request.request_id)

    def _hold(self, request: Request) -> Reply:
        assert request.deadline is not None
        in_doubt = self._held.get(request.request_id)
        if in_doubt is not None:
            return in_doubt.reply
        reply = Reply(request.request_id)
        expires_at = time.monotonic() + request.deadline - time.time()
        self._held[request.request_id] = Held(reply, expires_at)
        heapq.heappush(self._deadlines, (expires_at, request.request_id))
        return reply

    def _pop_due(self, now: float) -> list[tuple[str, Held]]:
        due = []
        while self._deadlines and self._deadlines[0][0] <= now:
            expires_at, request_id = heapq.heappop(self._deadlines)
            held = self._held.get(request_id)
            # An id that was used again has an older entry, maybe for the very same moment.
            if held is not None and held.expires_at == expires_at:
                due.append((request_id, self._held.pop(request_id)))
        return due

    def _sweep(self) -> None:
        if len(self._deadlines) > 2 * len(self._held) + 1024:
            self._deadlines = [(held.expires_at, key) for key, held in self._held.items()]
            heapq.heapify(self._deadlines)
