"""What llama.cpp logs: kept out of the terminal, kept at hand for error messages."""

from __future__ import annotations

import collections
import ctypes
import logging

LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

_WARNING = 3
_CONTINUED = 5
_KEPT = 8

logger = logging.getLogger(__name__)


class LogTail:
    """The last warnings and errors of llama.cpp in this process.

    Everything else that llama.cpp logs is dropped. The kept lines also go to the Python
    logger of this module, at level ``DEBUG``.
    """

    def __init__(self) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT)
        self._continues = False
        # llama.cpp holds a bare pointer: the callback must live as long as this object.
        self.callback = LOG_CALLBACK(self._receive)

    def clear(self) -> None:
        """Forget all lines; call it before a step whose failure is to be explained."""
        self._lines.clear()

    def text(self) -> str:
        """Return the kept lines, joined by ``"; "``; empty when there are none."""
        return "; ".join(line for line in (kept.strip() for kept in self._lines) if line)

    def explain(self, message: str) -> str:
        """Return ``message`` followed by the kept lines, if any."""
        said = self.text()
        return f"{message} (llama.cpp: {said})" if said else message

    # An exception must not leave this method: ctypes would print it to the terminal.
    def _receive(self, level: int, text: bytes | None, _user_data: int | None) -> None:
        if text is None:
            return
        line = text.decode("utf-8", "replace")
        if level == _CONTINUED:
            if self._continues and self._lines:
                self._lines[-1] += line
            return
        self._continues = level >= _WARNING
        if self._continues:
            self._lines.append(line)
            logger.debug("%s", line.rstrip())
