"""Arrival times, lengths and synthetic prompts."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.demo.prompts import chat_prompts, synthetic_prompt
from inferq.demo.workload import arrival_times, synthetic_load


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 3.0, 13.0])
def test_gaps_have_the_mean_and_the_variation_asked_for(cv: float) -> None:
    times = list(arrival_times(200_000, rate=4.0, cv=cv, seed=1))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = statistics.fmean(gaps)
    assert times[0] == 0
    assert mean == pytest.approx(0.25, rel=0.1)
    assert statistics.pstdev(gaps) / mean == pytest.approx(cv, rel=0.1, abs=1e-9)


def test_the_same_seed_gives_the_same_load() -> None:
    def load(seed: int) -> object:
        return synthetic_load(50, rate=1, cv=2, prompt_tokens=100, max_tokens=30, seed=seed)

    assert load(3) == load(3)
    assert load(3) != load(4)


def test_lengths_are_log_normal_around_the_median_and_bounded() -> None:
    load = synthetic_load(20_000, rate=1, cv=1, prompt_tokens=400, max_tokens=120, seed=0)
    prompts = [arrival.prompt_tokens for arrival in load]
    assert statistics.median(prompts) == pytest.approx(400, rel=0.05)
    assert statistics.fmean(prompts) > 1.3 * statistics.median(prompts)
    assert 1 <= min(prompts) <= max(prompts) <= 4000
    assert statistics.median(a.max_tokens for a in load) == pytest.approx(40, rel=0.05)
    assert all(1 <= arrival.max_tokens <= 120 for arrival in load)


@given(
    tokens=st.integers(1, 3000),
    vocab=st.integers(2, 50_000),
    hash_ids=st.lists(st.integers(0, 5), max_size=8),
)
def test_a_prompt_has_its_length_and_ids_of_the_vocabulary(
    tokens: int, vocab: int, hash_ids: list[int]
) -> None:
    prompt = synthetic_prompt(tokens, key="a", vocab=vocab, hash_ids=hash_ids)
    assert len(prompt) == tokens
    assert all(1 <= token < vocab for token in prompt)


def test_equal_blocks_give_equal_tokens_and_nothing_else_does() -> None:
    one = synthetic_prompt(1600, key="one", vocab=32_000, hash_ids=[4, 5])
    other = synthetic_prompt(1600, key="other", vocab=32_000, hash_ids=[4, 6])
    assert one[:512] == other[:512]
    assert one[512:1024] != other[512:1024]
    assert one[1024:] != other[1024:]


def test_real_prompts_repeat_when_more_are_asked_for() -> None:
    prompts = list(chat_prompts(20))
    assert len(prompts) == 20
    assert prompts[:8] == prompts[8:16]
