"""A decode node's engine in a process of its own, for one request."""

from __future__ import annotations

import asyncio
import json
import sys

from inferq import Handoff, Request, Settings
from inferq.engines import create_engine
from inferq.transfer import create_transfer


async def main() -> None:
    """Read settings, request and handoff; write the tokens."""
    words = json.loads(sys.stdin.readline())
    settings = Settings(**words["settings"])
    engine, transfer = create_engine(settings), create_transfer(settings)
    await transfer.start()
    engine.use_transfer(transfer)
    await engine.start()
    handoff = Handoff.parse(words["handoff"])
    received = await engine.receive(handoff)
    tokens: list[int] = []
    async for chunk in engine.decode(Request.parse(words["request"]), handoff, received):
        tokens += chunk.token_ids
    sys.stdout.write(json.dumps({"tokens": tokens, "protocol": received.protocol}) + "\n")
    await engine.stop()
    await transfer.stop()


if __name__ == "__main__":
    asyncio.run(main())
