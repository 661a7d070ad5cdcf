"""What is known of one request at its origin: its outputs so far, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from inferq.errors import RequestEnded
from inferq.messages import Crossing, FinishReason, Output, Timings, ended_error, error_output
from inferq.results.order import Match, Order, OutputsLost

Wake = Callable[[], None]


class ResultTimings(NamedTuple):
    """Where the time of a request went, in seconds, as its origin saw it.

    ``queue_s``: waiting for a node. ``ttft_s``: submit to first token. ``tpot_s``: mean time
    of each further token. ``e2e_s``: submit to end.
    """

    queue_s: float
    ttft_s: float
    tpot_s: float
    e2e_s: float


class Result(NamedTuple):
    """A whole answer. ``attempt``: how often it was started before; ``node``: who ended it;
    ``crossing``: who prefilled it, if that was another node.
    """

    request_id: str
    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    timings: ResultTimings
    attempt: int = 0
    node: str = ""
    crossing: Crossing | None = None


class Reply:
    """The outputs of one request, written by one thread and read by many.

    Outputs are delivered by (attempt, index), whatever the order in which they come: a token
    once, and nothing of an attempt that a newer one has replaced. A newer attempt goes on where
    the older one was; if its answer is another one, an output with ``restarted`` says so.

    There is no lock: outputs are only appended, and a reader looks again after it has left
    its wake-up call, so it cannot miss an output (see ``wait_after``).
    """

    __slots__ = (
        "_attempt",
        "_end_wakes",
        "_ended_at",
        "_first_at",
        "_next_index",
        "_order",
        "_outputs",
        "_submitted_at",
        "_wakes",
        "begin",
        "end",
        "request_id",
    )

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        #: The last output, once there is one.
        self.end: Output | None = None
        #: The position of the first output that is not void.
        self.begin = 0
        self._attempt = 0
        self._next_index = 0
        #: Sorts what does not come in order; most requests never need it.
        self._order: Order | None = None
        self._outputs: list[Output] = []
        self._wakes: list[Wake] = []
        self._end_wakes: list[Wake] = []
        self._submitted_at = time.monotonic()
        self._first_at: float | None = None
        self._ended_at = 0.0

    @property
    def started(self) -> bool:
        """Whether anything has come, so that the request must have reached the nodes."""
        return bool(self._outputs) or self.end is not None

    def push(self, output: Output) -> bool:
        """Take an output; False when it comes too late, so that its sender may stop."""
        if self.end is not None:
            return False
        if (
            output.index == self._next_index
            and output.attempt == self._attempt
            and self._order is None
        ):
            self._append(output)
            return True
        return self._push_out_of_order(output)

    def _append(self, output: Output) -> None:
        if output.restarted:
            self.begin = len(self._outputs)
        if output.token_ids and (self._first_at is None or output.restarted):
            self._first_at = time.monotonic()
        self._next_index = output.index + len(output.token_ids)
        self._outputs.append(output)
        if output.finished:
            self._ended_at = time.monotonic()
            self.end = output
        if self._wakes or output.finished:
            self._wake_all()

    def _push_out_of_order(self, output: Output) -> bool:
        if output.attempt < self._attempt:
            return False
        if output.error is not None:
            self._append(output)
            return True
        if output.attempt > self._attempt:
            self._attempt = output.attempt
            self._order = Order(0, self._text_from, Match(self._outputs[self.begin :]))
        elif self._order is None:
            self._order = Order(self._next_index, self._text_from)
        self._sort(self._order, output)
        return True

    def _sort(self, order: Order, output: Output) -> None:
        try:
            for piece in order.take(output):
                self._append(piece)
                if piece.finished:
                    return
        except OutputsLost:
            message = f"the output at {order.next_index} is missing"
            self._append(error_output(self.request_id, FinishReason.ERROR, "outputs_lost", message))
            return
        if order.settled:
            self._order = None
            self._next_index = order.next_index

    def _text_from(self, index: int) -> str | None:
        parts = [o.text for o in self._outputs[self.begin :] if o.index >= index]
        begins = any(o.index == index for o in self._outputs[self.begin :])
        return "".join(parts) if begins else None

    def drop(self, end: Output) -> None:
        """Forget all outputs; who reads from now on gets only this end."""
        self._outputs, self.begin = [], 0
        self.end = end
        self._wake_all()

    def at(self, position: int) -> Output | None:
        """The output at ``position``, None when it is not there (yet).

        Raises:
            RequestEnded: there will be none, for the request ended without an answer.
        """
        outputs, end = self._outputs, self.end
        if position < len(outputs):
            output = outputs[position]
            if output.error is not None:
                raise self._error(output)
            return output
        if end is not None and end.error is not None:
            raise self._error(end)
        return None

    def wait_after(self, position: int, wake: Wake) -> bool:
        """Have ``wake`` called once there are more than ``position`` outputs, or the end.

        Returns False when that is already so; ``wake`` may then still be called, once.
        """
        self._wakes.append(wake)
        return len(self._outputs) <= position and self.end is None

    def wait_end(self, wake: Wake) -> bool:
        """Have ``wake`` called at the end only; False when it has come."""
        self._end_wakes.append(wake)
        return self.end is None

    def stop_waiting(self, wake: Wake) -> None:
        """Take back a wake-up call that is not needed any more."""
        for wakes in (self._wakes, self._end_wakes):
            with suppress(ValueError):
                wakes.remove(wake)

    def result(self) -> Result:
        """The whole answer of a request that has ended.

        Raises:
            RequestEnded: it ended without one.
        """
        end = self.end
        assert end is not None
        if end.error is not None:
            raise self._error(end)
        outputs = self._outputs[self.begin :]
        token_ids = tuple(token for output in outputs for token in output.token_ids)
        return Result(
            self.request_id,
            token_ids,
            "".join(output.text for output in outputs),
            end.finish_reason or "",
            self._timings(end.timings or Timings(), len(token_ids)),
            end.attempt,
            end.node,
            end.crossing,
        )

    def _timings(self, node: Timings, tokens: int) -> ResultTimings:
        first_at = self._first_at if self._first_at is not None else self._ended_at
        return ResultTimings(
            queue_s=node.queue_s,
            ttft_s=first_at - self._submitted_at,
            tpot_s=(self._ended_at - first_at) / max(1, tokens - 1),
            e2e_s=self._ended_at - self._submitted_at,
        )

    def _wake_all(self) -> None:
        wakes, self._wakes = self._wakes, []
        if self.end is not None:
            ends, self._end_wakes = self._end_wakes, []
            wakes += ends
        for wake in wakes:
            wake()

    @staticmethod
    def _error(output: Output) -> RequestEnded:
        error = ended_error(output)
        assert error is not None
        return error
