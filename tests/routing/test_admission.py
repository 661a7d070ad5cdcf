from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.engines.base import Capacity
from inferq.routing.admission import AdmissionRule, Budget, Load, Size
from inferq.settings import AdmissionSettings

FREE = Capacity(
    block_size=64,
    total_blocks=100,
    free_blocks=100,
    total_slots=8,
    free_slots=8,
    tokens_per_batch=2048,
    max_model_len=4096,
)

IDLE = Load()


def rule(**settings: Any) -> AdmissionRule:
    return AdmissionRule(AdmissionSettings(**settings), FREE)


def budget(load: Load = IDLE, *, settings: dict[str, Any] | None = None, **free: int) -> Budget:
    return rule(**settings or {}).budget(FREE._replace(**free), load)


def taken(it: Budget, *prompts: int) -> list[int]:
    """Those of the prompts, by their tokens, that are taken one after the other."""
    got = []
    for prompt in prompts:
        size = Size(prompt, 16)
        if it.fits(size):
            it.spend(size)
            got.append(prompt)
    return got


@pytest.mark.parametrize(
    ("prompt", "blocks"), [(1, 3), (64, 3), (65, 4), (128, 4), (640, 12), (64 * 99, 100)]
)
def test_a_request_needs_the_blocks_of_its_prompt_and_the_reserve(prompt: int, blocks: int) -> None:
    assert rule().blocks(Size(prompt, 16)) == blocks


@pytest.mark.parametrize(
    ("free", "prompts", "got"),
    [
        (3, [64], [64]),
        (2, [64], []),
        (6, [64, 64, 64], [64, 64]),
        (6, [65, 64, 1], [65]),
        (7, [65, 64, 1], [65, 64]),
        (0, [1], []),
    ],
)
def test_requests_are_taken_while_their_blocks_fit(
    free: int, prompts: list[int], got: list[int]
) -> None:
    assert taken(budget(free_blocks=free), *prompts) == got


def test_a_request_needs_a_slot() -> None:
    assert taken(budget(free_slots=2), 1, 1, 1) == [1, 1]
    assert taken(budget(free_slots=0), 1) == []


def test_what_the_engine_does_not_count_yet_is_counted_here() -> None:
    assert taken(budget(Load(unseen_slots=7)), 1, 1) == [1]
    assert taken(budget(Load(unseen_blocks=95)), 64, 64) == [64]


@pytest.mark.parametrize(
    ("load", "prompts", "got"),
    [
        (Load(), [1000, 1048, 1], [1000, 1048]),
        (Load(), [3000, 1], [3000]),
        (Load(prefills=1, prefill_tokens=2000), [48, 1], [48]),
        (Load(prefills=1, prefill_tokens=2000), [49, 48], [48]),
        (Load(prefills=1, prefill_tokens=3000), [1], []),
        (Load(prefills=0), [2049], [2049]),
    ],
)
def test_without_chunks_prompt_tokens_are_bounded_but_one_is_always_taken(
    load: Load, prompts: list[int], got: list[int]
) -> None:
    assert taken(budget(load), *prompts) == got


def test_the_bound_of_prompt_tokens_can_be_set() -> None:
    assert taken(budget(settings={"max_num_batched_tokens": 100}), 60, 40, 1) == [60, 40]


@pytest.mark.parametrize(
    ("most", "most_long", "load", "prompts", "got"),
    [
        (1, 1, Load(), [10, 10], [10]),
        (3, 1, Load(), [10, 10, 10, 10], [10, 10, 10]),
        (3, 1, Load(), [500, 500, 10, 10], [500, 10, 10]),
        (3, 2, Load(), [500, 500, 500, 10], [500, 500, 10]),
        (2, 1, Load(prefills=2), [10], []),
        (2, 1, Load(prefills=1), [10, 10], [10]),
        (3, 1, Load(prefills=1, long_prefills=1), [500, 10], [10]),
        (1, 1, Load(), [3000], [3000]),
        (4, 1, Load(prefills=1, prefill_tokens=99_999), [10], [10]),
    ],
)
def test_with_chunks_prefills_and_long_prefills_are_bounded_by_number(
    most: int, most_long: int, load: Load, prompts: list[int], got: list[int]
) -> None:
    settings = {
        "enable_chunked_prefill": True,
        "max_num_partial_prefills": most,
        "max_long_partial_prefills": most_long,
    }
    assert taken(budget(load, settings=settings), *prompts) == got


@pytest.mark.parametrize(
    ("threshold", "prompt", "is_long"),
    [(0, 163, False), (0, 164, True), (50, 50, False), (50, 51, True)],
)
def test_a_prompt_is_long_beyond_the_threshold_or_4_percent_of_the_model(
    threshold: int, prompt: int, is_long: bool
) -> None:
    assert rule(long_prefill_token_threshold=threshold).is_long(Size(prompt, 1)) is is_long


@pytest.mark.parametrize(
    ("prompt", "answer", "never"), [(4000, 96, False), (4000, 97, True), (4097, 1, True)]
)
def test_what_exceeds_the_model_never_fits(prompt: int, answer: int, never: bool) -> None:
    assert rule().never_fits(Size(prompt, answer)) is never


def test_what_exceeds_the_cache_never_fits() -> None:
    small = AdmissionRule(AdmissionSettings(), FREE._replace(total_blocks=10))
    assert not small.never_fits(Size(600, 40))
    assert small.never_fits(Size(600, 41))


@given(st.integers(1, 4096), st.booleans(), st.integers(0, 200))
def test_what_can_fit_does_fit_an_idle_engine(prompt: int, chunked: bool, reserve: int) -> None:
    it = rule(enable_chunked_prefill=chunked, reserved_output_blocks=reserve)
    size = Size(prompt, 1)
    assert it.never_fits(size) or it.budget(FREE, Load()).fits(size)


@given(st.lists(st.integers(1, 2000), max_size=20), st.integers(0, 100), st.integers(0, 8))
def test_never_more_is_taken_than_is_free(prompts: list[int], blocks: int, slots: int) -> None:
    got = taken(budget(free_blocks=blocks, free_slots=slots), *prompts)
    assert len(got) <= slots
    assert sum(rule().blocks(Size(prompt, 16)) for prompt in got) <= blocks
    assert len(got) <= 1 or sum(got) <= FREE.tokens_per_batch
