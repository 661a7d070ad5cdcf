"""A producer in a process of its own, for tests that stop or kill it.

Run with one argument, a JSON object: ``settings``; ``count`` requests named ``prefix-0`` and so on,
of ``tokens`` tokens with ``pace_ms`` between them. Writes one JSON array a line: ``["ready"]``,
``["submitted", id]``, ``["output", ...]`` with the fields of an output, ``["failed", id, error]``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from inferq import AsyncClient, InferqError, Settings
from inferq.client import AsyncHandle


def say(*row: Any) -> None:
    """Write one line, at once."""
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


async def follow(handle: AsyncHandle) -> None:
    """Write down every output of a request."""
    try:
        async for output in handle.stream():
            say("output", *output)
    except InferqError as exc:
        say("failed", handle.request_id, str(exc))


async def produce(job: dict[str, Any]) -> None:
    """Submit what the job says, and follow it to its end."""
    async with AsyncClient(Settings(**job["settings"])) as client:
        say("ready")
        requests = [
            {
                "request_id": f"{job['prefix']}-{n}",
                "prompt_token_ids": [job["pace_ms"]],
                "max_tokens": job["tokens"],
            }
            for n in range(job["count"])
        ]
        handles = await client.submit_many(requests)
        for handle in handles:
            say("submitted", handle.request_id)
        await asyncio.gather(*(follow(handle) for handle in handles))
        say("done")


if __name__ == "__main__":
    asyncio.run(produce(json.loads(sys.argv[1])))
