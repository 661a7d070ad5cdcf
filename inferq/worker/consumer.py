"""Celery's consumer, in more of a hurry to be back after Redis was away."""

from __future__ import annotations

from functools import partial
from typing import Any

from celery.worker import consumer

#: Pauses between attempts to connect: the first, the growth of the next, the longest, seconds.
FIRST_S, STEP_S, LONGEST_S = 0.1, 0.2, 1.0


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Tries to connect again at least once a second.

    Celery's pauses grow by two seconds each. The node's own connections are back sooner and claim
    requests again, which would wait here for the consumer.
    """

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, as often as it takes."""
        conn.ensure_connection = partial(
            conn.ensure_connection,
            interval_start=FIRST_S,
            interval_step=STEP_S,
            interval_max=LONGEST_S,
        )
        return super().ensure_connected(conn)
