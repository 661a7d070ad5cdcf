"""How the sync and the async client wait for a reply."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from inferq.results.reply import Reply

#: Leaves a wake-up call; False when there is nothing to wait for any more.
Register = Callable[[Callable[[], None]], bool]


def block(register: Register, timeout_s: float | None = None, reply: Reply | None = None) -> bool:
    """Block this thread until woken; False when the time is over first."""
    lock = threading.Lock()
    lock.acquire()
    if not register(lock.release):
        return True
    woken = lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))
    if not woken and reply is not None:
        reply.stop_waiting(lock.release)
    return woken


async def wait(register: Register, reply: Reply) -> None:
    """Let the event loop go on until woken from another thread."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(woken.set)

    try:
        if register(wake):
            await woken.wait()
    finally:
        reply.stop_waiting(wake)
