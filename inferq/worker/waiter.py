"""Blocking Redis commands that one thread waits for together."""

from __future__ import annotations

import time
from typing import Any

from inferq.cluster.link import Link
from inferq.settings import Settings


class Waiter:
    """One connection with at most one blocking command on its way."""

    def __init__(self, settings: Settings, block_s: float) -> None:
        self._block_s = block_s
        self._grace_s = settings.cluster.redis_timeout_s
        self._link = Link(settings)
        self._sent_at: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a command is on its way."""
        return self._sent_at is not None

    @property
    def is_overdue(self) -> bool:
        """Whether Redis should have answered by now, if only with nothing."""
        return self._sent_at is not None and (
            time.monotonic() - self._sent_at > self._block_s + self._grace_s
        )

    def send(self, *command: Any) -> None:
        """Send ``command``, with the time to block for added. Raises one of AWAY."""
        connection = self._link.connection
        try:
            connection.send_command(*command, self._block_s, check_health=False)
        except BaseException:
            self.close()
            raise
        self._sent_at = time.monotonic()

    def fileno(self) -> int:
        """Readable when the answer is there."""
        return int(self._link.connection._sock.fileno())  # noqa: SLF001 - there is no other way

    def read(self) -> Any:
        """The answer; None when there was nothing. Raises one of AWAY."""
        self._sent_at = None
        try:
            return self._link.connection.read_response()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection, and with it the command."""
        self._sent_at = None
        self._link.close()
