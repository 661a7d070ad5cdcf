"""Prompts: a few real ones, and synthetic ones made of token ids."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache

#: Tokens that one id of a Mooncake trace's ``hash_ids`` stands for.
HASH_BLOCK_TOKENS = 512
CHAT_PROMPTS = (
    "What is the capital of France, and what is it known for?",
    "Explain in two sentences why the sky is blue.",
    "Write a haiku about the sea in winter.",
    "Give me three tips for learning a new language.",
    "What is the difference between a stack and a queue?",
    "Write a short, polite e-mail that moves a meeting to Friday.",
    "Name four animals that live in the desert.",
    "Tell me the beginning of a story about a lighthouse keeper.",
)


def chat_prompts(count: int) -> Iterator[str]:
    """The real prompts, over and over."""
    for number in range(count):
        yield CHAT_PROMPTS[number % len(CHAT_PROMPTS)]


def synthetic_prompt(
    tokens: int, *, key: str, vocab: int, hash_ids: Sequence[int] = ()
) -> list[int]:
    """A prompt of exactly ``tokens`` token ids, each from 1 to below ``vocab``.

    Equal ``hash_ids`` give equal blocks of 512 tokens; what they do not cover follows from
    ``key`` alone.
    """
    prompt: list[int] = []
    for hash_id in hash_ids[: -(-tokens // HASH_BLOCK_TOKENS)]:
        prompt.extend(_block(hash_id, vocab))
    del prompt[tokens:]
    prompt.extend(_random_ids(key, tokens - len(prompt), vocab))
    return prompt


@lru_cache(maxsize=1024)
def _block(hash_id: int, vocab: int) -> tuple[int, ...]:
    return tuple(_random_ids(f"block {hash_id}", HASH_BLOCK_TOKENS, vocab))


def _random_ids(key: str, count: int, vocab: int) -> list[int]:
    numbers = array("I", random.Random(key).randbytes(4 * count))
    return [1 + number % (vocab - 1) for number in numbers]
