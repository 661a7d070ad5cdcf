"""Wakes a thread that waits in ``select``, from any other thread."""

from __future__ import annotations

import os
from contextlib import suppress


class Wakeup:
    """A pipe to oneself: readable from ``set`` until ``clear``."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_set = False

    def fileno(self) -> int:
        """Readable while set."""
        return self._reader

    def set(self) -> None:
        """Wake whoever waits. For any thread; cheap when it is set already."""
        if not self._is_set:
            self._is_set = True
            with suppress(OSError):  # full: it is readable; closed: nobody waits any more
                os.write(self._writer, b"\0")

    def clear(self) -> None:
        """Reset. What is looked at after this call includes all that was there at any ``set``."""
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        self._is_set = False

    def close(self) -> None:
        """Free the descriptors."""
        os.close(self._reader)
        os.close(self._writer)
