"""Twenty thousand requests: every one accounted for, and memory flat."""

from __future__ import annotations

import random
import time
from collections import Counter, deque

import psutil
import pytest

from inferq import Client, Handle, RequestCancelled, RequestExpired
from tests.support import LONG_S, fast, wait_until

TOTAL = 20_000
IN_FLIGHT = 300


@pytest.mark.slow
def test_a_soak_ends_with_every_request_accounted_for_and_memory_flat() -> None:
    chance = random.Random(1)
    ends: Counter[str] = Counter()
    memory = []
    process = psutil.Process()
    settings = fast(simulated={"total_blocks": 600, "max_slots": 64, "end_probability": 0.05})
    with Client(settings) as client:
        pending: deque[Handle] = deque()
        for number in range(TOTAL):
            pending.append(submit(client, chance))
            if chance.random() < 0.05:
                chance.choice(pending).cancel()
            if len(pending) >= IN_FLIGHT:
                ends[end_of(pending.popleft())] += 1
            if number % 1000 == 999:
                memory.append(process.memory_info().rss)
        while pending:
            ends[end_of(pending.popleft())] += 1
        wait_until(lambda: client.counts().running == 0)
        counts = client.counts()
    assert sum(ends.values()) == TOTAL
    assert min(ends["stop"], ends["length"], ends["cancelled"], ends["expired"]) > 0
    assert (counts.held, counts.waiting, counts.running, counts.unread) == (0, 0, 0, 0)
    assert counts.free_blocks == counts.total_blocks
    half = memory[len(memory) // 2]
    assert memory[-1] < half * 1.1 + 8_000_000


def submit(client: Client, chance: random.Random) -> Handle:
    prompt = [chance.randrange(1000) for _ in range(int(chance.lognormvariate(4, 1)) + 1)][:2000]
    deadline = time.time() + 0.05 if chance.random() < 0.01 else None
    return client.submit(
        prompt_token_ids=prompt, max_tokens=chance.randint(1, 24), deadline=deadline
    )


def end_of(handle: Handle) -> str:
    try:
        return handle.result(LONG_S).finish_reason
    except RequestCancelled:
        return "cancelled"
    except RequestExpired:
        return "expired"
