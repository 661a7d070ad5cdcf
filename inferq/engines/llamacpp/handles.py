"""Ownership of what llama.cpp allocates."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Handle:
    """A pointer to something of llama.cpp that is freed exactly once.

    It is freed by ``free``, or when nothing refers to the handle any more, or at interpreter
    exit: whichever comes first. ``needs`` are objects that must outlive it; they must not
    refer back to it. ``lock`` is held while the pointer is freed; whoever needs it to stay
    meanwhile holds the lock or the handle.
    """

    def __init__(self, pointer: int, free: Callable[[int], None], *needs: object) -> None:
        self.lock = threading.RLock()
        self._pointer = pointer
        # The finalizer holds `needs`, so that the garbage collector, which frees a cycle in
        # no particular order, cannot free a model before its context. At exit finalizers run
        # last-made first, which is the right order too.
        self._finalizer = weakref.finalize(self, _free, free, pointer, self.lock, needs)

    def pointer(self, what: str) -> int:
        """Return the pointer. Raises ``RuntimeError`` when it was freed."""
        if not self._finalizer.alive:
            raise RuntimeError(f"this {what} is closed")
        return self._pointer

    def free(self) -> None:
        """Free it now; does nothing when that has happened."""
        self._finalizer()


def _free(
    free: Callable[[int], None], pointer: int, lock: threading.RLock, _needs: tuple[object, ...]
) -> None:
    with lock:
        free(pointer)


class Closing(ABC):
    """Something that is closed at the end of a ``with`` statement."""

    @abstractmethod
    def close(self) -> None:
        """Free it; does nothing the second time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
