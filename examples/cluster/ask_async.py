"""Many requests at once from asyncio: a batch is enqueued in one step, answers come as they end.

export INFERQ_SCHEDULER_NAME=global        # or splitwise
export INFERQ_SCHEDULER_URL=redis://127.0.0.1:6379/0
python examples/cluster/ask_async.py
"""

import asyncio

from inferq import AsyncClient, AsyncHandle, RequestEnded, Settings


async def show(handle: AsyncHandle) -> None:
    """Wait for one answer."""
    try:
        result = await handle.result(timeout=120)
    except RequestEnded as error:
        print(error)
    else:
        print(f"{handle.request_id}: {len(result.token_ids)} tokens, {result.finish_reason}")


async def main() -> None:
    """Submit twenty prompts, the last ten with less urgency."""
    prompts = [
        {
            "request_id": f"batch-{number}",
            "prompt": f"{number} times two is",
            "max_tokens": 8,
            "priority": 0 if number < 10 else 6,
        }
        for number in range(20)
    ]
    async with AsyncClient(Settings()) as client:
        handles = await client.submit_many(prompts)
        await asyncio.gather(*(show(handle) for handle in handles))


asyncio.run(main())
