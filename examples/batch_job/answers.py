"""The answers: a file with a JSON object a line, in the order in which they came."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: How every line begins.
_BEGIN = b'{"key": '


class AnswersError(Exception):
    """The file cannot be used, and why."""


class Answers:
    """Appends to the file, as the only one who does.

    A line is either whole or, if this process was killed while it wrote it, dropped by the next
    one. ``done`` are the keys that have an answer or an error; with ``again`` errors do not count.
    """

    def __init__(self, path: Path, *, again: bool = False) -> None:
        self._path = path
        self._again = again
        self.done: set[str] = set()
        self._file = path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError:
            self._file.close()
            raise AnswersError(f"{path}: another job is writing it") from None
        except BaseException:
            self._file.close()
            raise

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Append an answer. From now on a kill of this process cannot lose it."""
        self._file.write(json.dumps({"key": key, **record}).encode() + b"\n")
        self._file.flush()
        self.done.add(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        for number, raw in enumerate(self._file, 1):
            if not raw.startswith(_BEGIN[: len(raw)]):
                raise AnswersError(f"{self._path}: line {number} was not written by this job")
            if raw.endswith(b"\n"):
                self._note(number, raw)
            else:
                os.ftruncate(self._file.fileno(), self._file.tell() - len(raw))

    def _note(self, number: int, raw: bytes) -> None:
        try:
            record = json.loads(raw)
        except ValueError:
            raise AnswersError(f"{self._path}: line {number} is damaged") from None
        if "error" in record and self._again:
            self.done.discard(record["key"])
        else:
            self.done.add(record["key"])
