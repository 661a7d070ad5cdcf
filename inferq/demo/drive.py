"""Runs requests to their end, while a screen follows and Ctrl-C is obeyed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from inferq.client import AsyncClient
from inferq.demo.live import Screen

REFRESH_S = 0.1
#: What a shell expects of a program that was ended by Ctrl-C.
INTERRUPTED = 130


def stop_on_interrupt() -> asyncio.Event:
    """An event that the first Ctrl-C sets; a second one interrupts as usual."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, interrupted)
    return stop


async def drive(
    client: AsyncClient, work: Coroutine[Any, Any, None], screen: Screen, stop: asyncio.Event
) -> None:
    """Await ``work``; once ``stop`` is set, cancel every request so that it ends."""
    job = asyncio.ensure_future(work)
    stopper = asyncio.ensure_future(stop.wait())
    waiting: set[asyncio.Future[Any]] = {job, stopper}
    try:
        with screen:
            while not job.done():
                await asyncio.wait(waiting, timeout=REFRESH_S, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    waiting.discard(stopper)
                    client.reset()
                screen.refresh()
        await job
    finally:
        for task in (job, stopper):
            task.cancel()
        await asyncio.gather(job, stopper, return_exceptions=True)


async def sleep_until(at_s: float, stop: asyncio.Event) -> None:
    """Sleep until the loop's clock shows ``at_s`` seconds, or until ``stop`` is set."""
    delay_s = at_s - asyncio.get_running_loop().time()
    if delay_s <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(delay_s):
            await stop.wait()
    except TimeoutError:
        pass
