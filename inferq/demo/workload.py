"""What arrives when: arrival times and lengths of requests."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Standard deviation of the logarithm of a length.
PROMPT_SIGMA = 1.0
OUTPUT_SIGMA = 0.7
LONGEST_PROMPT_IN_MEDIANS = 10


@dataclass(frozen=True)
class Arrival:
    """A request to come: ``at_s`` seconds after the start, lengths in tokens."""

    at_s: float
    prompt_tokens: int
    max_tokens: int
    hash_ids: tuple[int, ...] = field(default=())


def arrival_times(count: int, *, rate: float, cv: float, seed: int) -> Iterator[float]:
    """Seconds from the start, the first one 0, at a mean of ``rate`` a second.

    The gaps are gamma-distributed with coefficient of variation ``cv``: 0 is a metronome,
    1 a Poisson process, more comes in bursts.
    """
    random_ = random.Random(f"arrivals {seed}")
    mean_gap_s = 1 / rate
    at_s = 0.0
    for _ in range(count):
        yield at_s
        if cv == 0:
            at_s += mean_gap_s
        else:
            at_s += random_.gammavariate(1 / cv**2, mean_gap_s * cv**2)


def lognormal_tokens(random_: random.Random, *, median: float, sigma: float, most: int) -> int:
    """A length from 1 to ``most`` tokens."""
    return min(most, max(1, round(random_.lognormvariate(math.log(median), sigma))))


def synthetic_load(
    count: int, *, rate: float, cv: float, prompt_tokens: int, max_tokens: int, seed: int
) -> list[Arrival]:
    """A load with log-normal lengths, of median ``prompt_tokens`` and a third of ``max_tokens``."""
    random_ = random.Random(f"lengths {seed}")
    most_prompt = LONGEST_PROMPT_IN_MEDIANS * prompt_tokens
    return [
        Arrival(
            at_s,
            lognormal_tokens(random_, median=prompt_tokens, sigma=PROMPT_SIGMA, most=most_prompt),
            lognormal_tokens(
                random_, median=max(1, max_tokens / 3), sigma=OUTPUT_SIGMA, most=max_tokens
            ),
        )
        for at_s in arrival_times(count, rate=rate, cv=cv, seed=seed)
    ]
