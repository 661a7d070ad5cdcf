"""A process that keeps one KV cache, or fetches one and stops in the middle."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from inferq.transfer import Transfer
from tests.transfer_kv.kinds import noise, offer, sockets


def say(**words: Any) -> None:
    """Tell the test, as one JSON line."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


async def send(transfer: Transfer, nbytes: int) -> None:
    """Offer a cache, and say so whenever the number of those kept changes."""
    offered = await offer(transfer, noise(nbytes))
    say(kv=offered.kv, protocols=offered.protocols)
    kept = 1
    while True:
        if len(transfer.kept()) != kept:
            kept = len(transfer.kept())
            say(kept=kept)
        await asyncio.sleep(0.01)


async def receive(transfer: Transfer) -> None:
    """Fetch what the test names."""
    words = json.loads(sys.stdin.readline())
    say(fetching=True)
    fetched = await transfer.fetch(words["kv"], words["protocols"])
    say(nbytes=len(fetched.data), protocol=fetched.protocol)


async def main() -> None:
    """``send NBYTES`` or ``receive``."""
    transfer = sockets(timeout_s=30)
    await transfer.start()
    if sys.argv[1] == "send":
        await send(transfer, int(sys.argv[2]))
    else:
        await receive(transfer)
    await transfer.stop()


if __name__ == "__main__":
    asyncio.run(main())
