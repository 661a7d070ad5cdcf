"""What requests ask of the counting engine, and what it writes down about them.

The journal is a file that all nodes of a test append to.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from inferq.messages import Request


class Shape(NamedTuple):
    """The first prompt tokens: the time between two tokens, and to the first one of a prefill; the
    time that writing the KV cache takes, all in milliseconds; and its size in KiB.
    """

    pace_ms: int = 0
    prefill_ms: int = 0
    export_ms: int = 0
    kv_kib: int = 16

    @classmethod
    def of(cls, request: Request) -> Shape:
        """What this request asks for."""
        return cls(*(request.prompt_token_ids or ())[: len(cls._fields)])


class Entry(NamedTuple):
    """A line of the journal; ``pid`` is the node's process.

    ``what``: an engine begins with start, prefill or decode, and ends with end (the last token was
    made), handed (the KV cache is kept, or was given away) or abort. Besides: export (it is kept),
    fetch (it has arrived whole) and corrupt (it is another one).
    """

    what: str
    pid: int
    request_id: str


class Journal:
    """Appends lines that several processes may write at once, and reads them all."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file = self._path.open("ab", buffering=0)

    def write(self, what: str, request_id: str) -> None:
        """Append one line, in one system call."""
        self._file.write(f"{what} {os.getpid()} {request_id}\n".encode())

    def read(self) -> list[Entry]:
        """All lines so far; of one that is just being written a part may be there already."""
        text = self._path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [Entry(what, int(pid), name) for what, pid, name in map(str.split, lines)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
