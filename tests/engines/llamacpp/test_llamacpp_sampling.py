from __future__ import annotations

from typing import Any

import pytest

from inferq.engines.llamacpp.batch import Row
from inferq.engines.llamacpp.context import LlamaContext
from inferq.engines.llamacpp.model import LlamaModel
from inferq.engines.llamacpp.sampling import Sampler


@pytest.fixture
def index(model: LlamaModel, context: LlamaContext) -> int:
    """Logits of some text."""
    tokens = model.tokenize("My favourite animal is the", False, False)
    return context.decode([Row(0, tokens, 0, True)])[0]


def draws(model: LlamaModel, context: LlamaContext, index: int, **parameters: Any) -> list[int]:
    with Sampler(model, **parameters) as sampler:
        return [sampler.sample(context, index) for _ in range(12)]


def test_temperature_0_takes_the_likeliest(
    model: LlamaModel, context: LlamaContext, index: int
) -> None:
    values = context.logits_ptr(index)[: model.vocab_size]
    likeliest = values.index(max(values))
    assert set(draws(model, context, index, top_k=5, seed=3)) == {likeliest}
    assert set(draws(model, context, index, temperature=1.0, top_k=1)) == {likeliest}
    assert set(draws(model, context, index, temperature=1.0, top_p=1e-6)) == {likeliest}
    assert set(draws(model, context, index, temperature=1.0, min_p=1.0)) == {likeliest}


@pytest.mark.parametrize("seed", [0, 7, -1, 0xFFFFFFFF, 2**70])
def test_equal_seeds_draw_equal_tokens(
    model: LlamaModel, context: LlamaContext, index: int, seed: int
) -> None:
    first = draws(model, context, index, temperature=1.5, seed=seed)
    assert first == draws(model, context, index, temperature=1.5, seed=seed)
    assert first != draws(model, context, index, temperature=1.5, seed=seed + 1)
    assert len(set(first)) > 1


def test_only_the_top_k_are_drawn(model: LlamaModel, context: LlamaContext, index: int) -> None:
    values = context.logits_ptr(index)[: model.vocab_size]
    best = sorted(range(len(values)), key=values.__getitem__)[-3:]
    found = draws(model, context, index, temperature=5.0, top_k=3)
    assert set(found) <= set(best)


def test_banned_tokens_are_not_drawn_and_logits_are_kept(
    model: LlamaModel, context: LlamaContext, index: int
) -> None:
    before = context.logits_ptr(index)[: model.vocab_size]
    with Sampler(model) as sampler:
        first = sampler.sample(context, index)
        second = sampler.sample(context, index, banned=[first, first])
        third = sampler.sample(context, index, banned=(first, second, *model.end_tokens))
        assert sampler.sample(context, index) == first
    assert len({first, second, third}) == 3
    assert context.logits_ptr(index)[: model.vocab_size] == before


def test_sampling_where_there_is_nothing_is_refused(
    model: LlamaModel, context: LlamaContext, index: int
) -> None:
    with Sampler(model) as sampler:
        with pytest.raises(ValueError, match="no logits"):
            sampler.sample(context, index + 1)
        with pytest.raises(ValueError, match="not in the vocabulary"):
            sampler.sample(context, index, banned=[model.vocab_size])


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -1.0},
        {"top_k": -1},
    ],
)
def test_parameters_out_of_range_are_refused(model: LlamaModel, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampler(model, **wrong)  # type: ignore[arg-type]
