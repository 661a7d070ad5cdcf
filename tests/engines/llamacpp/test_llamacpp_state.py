from __future__ import annotations

from collections.abc import Callable

import pytest

from inferq.engines.llamacpp.batch import Row
from inferq.engines.llamacpp.context import LlamaContext
from inferq.engines.llamacpp.model import LlamaModel
from inferq.engines.llamacpp.sampling import Sampler
from inferq.errors import EngineStepError

MakeContext = Callable[..., LlamaContext]


def export(context: LlamaContext, seq_id: int) -> memoryview:
    memory = memoryview(bytearray(context.state_size(seq_id)))
    context.state_get(seq_id, memory)
    return memory


def continue_greedily(
    model: LlamaModel, context: LlamaContext, seq_id: int, token: int, at: int
) -> list[int]:
    found = []
    with Sampler(model) as sampler:
        for position in range(at, at + 6):
            index = context.decode([Row(seq_id, [token], position, True)])[0]
            token = sampler.sample(context, index)
            found.append(token)
    return found


def test_an_exported_sequence_goes_on_equally_in_another_context(
    model: LlamaModel, make_context: MakeContext, ask: Callable[[str], list[int]]
) -> None:
    prompt = ask("What is the capital of France?")
    here, there = make_context(), make_context(n_seq_max=2)
    here.decode([Row(3, prompt[:-1], 0, False)])
    there.decode([Row(0, [5, 6, 7], 0, False)])
    state = export(here, 3)
    there.state_set(1, state)
    assert there.held(1) == len(prompt) - 1
    at = len(prompt) - 1
    expected = continue_greedily(model, here, 3, prompt[-1], at)
    assert continue_greedily(model, there, 1, prompt[-1], at) == expected
    assert there.held(0) == 3
    there.state_set(1, state)
    assert continue_greedily(model, there, 1, prompt[-1], at) == expected


@pytest.mark.parametrize("damage", [lambda d: d[:0], lambda d: d[:3], lambda d: d[:-50]])
def test_damaged_state_is_refused_and_leaves_the_sequence_empty(
    context: LlamaContext, damage: Callable[[memoryview], memoryview]
) -> None:
    context.decode([Row(0, [5, 6, 7], 0, False), Row(1, [5], 0, False)])
    with pytest.raises(EngineStepError, match="refused"):
        context.state_set(1, damage(export(context, 0)))
    assert context.held(1) == 0
    assert context.held(0) == 3


def test_state_that_does_not_fit_is_refused(make_context: MakeContext) -> None:
    large, small = make_context(n_ctx=512), make_context(n_ctx=256)
    large.decode([Row(0, [5] * 200, 0, False)])
    small.decode([Row(0, [5] * 100, 0, False)])
    with pytest.raises(EngineStepError, match="refused"):
        small.state_set(1, export(large, 0))
    assert small.held(0) == 100
    small.forget(0)
    small.state_set(1, export(large, 0))
    assert small.held(1) == 200


def test_an_empty_sequence_can_be_exported(context: LlamaContext) -> None:
    context.state_set(1, export(context, 0))
    assert context.held(1) == 0
