from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest

from inferq.engines.llamacpp.batch import Row
from inferq.engines.llamacpp.context import LlamaContext
from inferq.engines.llamacpp.failures import DecodeFailed
from inferq.engines.llamacpp.model import LlamaModel
from inferq.engines.llamacpp.sampling import Sampler
from inferq.errors import EngineStartError, EngineStepError

Ask = Callable[[str], list[int]]


def logits(context: LlamaContext, index: int, vocab_size: int) -> bytes:
    return ctypes.string_at(context.logits_ptr(index), vocab_size * 4)


def generate(
    model: LlamaModel,
    context: LlamaContext,
    prompts: dict[int, list[int]],
    joins: dict[int, int] | None = None,
) -> dict[int, str]:
    """Greedy texts of all prompts, computed in common steps; ``joins`` has their first steps."""
    pending: dict[int, tuple[list[int], int]] = {}
    texts = dict.fromkeys(prompts, b"")
    with Sampler(model) as sampler:
        for step in range(16):
            for seq_id, prompt in prompts.items():
                if step == (joins or {}).get(seq_id, 0):
                    pending[seq_id] = (prompt, 0)
            rows = [Row(seq_id, tokens, at, True) for seq_id, (tokens, at) in pending.items()]
            if not rows:
                break
            for row, index in zip(rows, context.decode(rows), strict=True):
                token = sampler.sample(context, index)
                texts[row.seq_id] += model.piece(token)
                pending[row.seq_id] = ([token], row.position + len(row.tokens))
                if model.is_end(token):
                    del pending[row.seq_id]
    return {seq_id: text.decode() for seq_id, text in texts.items()}


def test_two_sequences_in_one_batch_answer_sensibly(
    model: LlamaModel, context: LlamaContext, ask: Ask
) -> None:
    prompts = {
        0: ask("What is the capital of France?"),
        3: ask("What is the capital of Italy?"),
    }
    texts = generate(model, context, prompts)
    assert "Paris" in texts[0]
    assert "Rome" in texts[3]


def test_a_sequence_may_join_later(model: LlamaModel, context: LlamaContext, ask: Ask) -> None:
    prompts = {
        0: ask("What is the capital of France?"),
        1: ask("What is the capital of Italy?"),
    }
    texts = generate(model, context, prompts, joins={1: 3})
    assert "Paris" in texts[0]
    assert "Rome" in texts[1]


def test_a_prompt_may_come_in_chunks(model: LlamaModel, context: LlamaContext, ask: Ask) -> None:
    prompt = ask("What is the capital of France?")
    assert context.decode([Row(0, prompt[:5], 0, False)]) == [-1]
    index = context.decode([Row(0, prompt[5:], 5, True)])[0]
    with Sampler(model) as sampler:
        assert model.piece(sampler.sample(context, index)) == b"The"


def test_a_forgotten_sequence_can_be_used_again(
    model: LlamaModel, context: LlamaContext, ask: Ask
) -> None:
    context.decode([Row(2, ask("Tell me about bread."), 0, False)])
    context.forget(2)
    context.forget(2)
    assert context.held(2) == 0
    texts = generate(model, context, {2: ask("What is the capital of France?")})
    assert "Paris" in texts[2]


def test_a_repeated_row_gives_equal_logits(
    model: LlamaModel, context: LlamaContext, ask: Ask
) -> None:
    prompt = ask("What is the capital of France?")
    context.decode([Row(0, prompt, 0, False)])
    found = []
    for _ in range(2):
        index = context.decode([Row(0, [100, 200], len(prompt), True)])[0]
        found.append(logits(context, index, model.vocab_size))
        assert context.held(0) == len(prompt) + 2
    context.decode([Row(0, [7, 7, 7], len(prompt) + 2, False)])
    index = context.decode([Row(0, [100, 200], len(prompt), True)])[0]
    assert found[0] == found[1] == logits(context, index, model.vocab_size)
    assert context.held(0) == len(prompt) + 2


def test_a_full_memory_is_reported_and_the_context_stays_usable(
    model: LlamaModel, make_context: Callable[..., LlamaContext], ask: Ask
) -> None:
    context = make_context(n_ctx=256)
    context.decode([Row(0, [100] * 120, 0, False)])
    context.decode([Row(1, [200] * 120, 0, False)])
    with pytest.raises(DecodeFailed) as caught:
        context.decode([Row(2, [300] * 100, 0, True)])
    assert caught.value.no_kv_slot
    assert isinstance(caught.value, EngineStepError)
    assert [context.held(seq_id) for seq_id in range(3)] == [120, 120, 0]
    with pytest.raises(ValueError, match="no logits"):
        context.logits_ptr(0)
    context.forget(0)
    texts = generate(model, context, {2: ask("What is the capital of France?")})
    assert "Paris" in texts[2]


def test_a_token_that_does_not_exist_is_refused(model: LlamaModel, context: LlamaContext) -> None:
    with pytest.raises(DecodeFailed, match="not valid") as caught:
        context.decode([Row(0, [model.vocab_size], 0, True)])
    assert caught.value.status == -1
    assert not caught.value.no_kv_slot
    assert context.decode([Row(0, [5], 0, True)]) == [0]


def test_a_gap_is_refused(context: LlamaContext) -> None:
    context.decode([Row(0, [5, 6], 0, False)])
    with pytest.raises(EngineStepError, match="holds 2 tokens: a row cannot begin at 3"):
        context.decode([Row(0, [7], 3, True)])
    with pytest.raises(EngineStepError, match="cannot begin at -1"):
        context.decode([Row(0, [7], -1, True)])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "1 to 256 tokens, not 0"),
        ([Row(0, [1] * 257, 0, True)], "1 to 256 tokens, not 257"),
        ([Row(0, [1], 0, True), Row(1, [], 0, True)], "sequence 1 has no tokens"),
        ([Row(0, [1], 0, True), Row(0, [2], 1, True)], "two rows"),
        ([Row(4, [1], 0, True)], "sequence 4 is not one of the 4"),
        ([Row(-1, [1], 0, True)], "sequence -1 is not one"),
    ],
)
def test_malformed_rows_are_refused(context: LlamaContext, rows: list[Row], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        context.decode(rows)


def test_logits_exist_only_where_they_were_wanted(context: LlamaContext) -> None:
    assert context.decode([Row(0, [5, 6], 0, True), Row(1, [5], 0, False)]) == [1, -1]
    context.logits_ptr(1)
    for index in (-1, 0, 2, 99):
        with pytest.raises(ValueError, match="no logits"):
            context.logits_ptr(index)


@pytest.mark.parametrize(
    "wrong", [{"n_ctx": 0}, {"n_batch": -1}, {"n_seq_max": 0}, {"n_seq_max": 100_000}]
)
def test_sizes_out_of_range_are_refused(
    make_context: Callable[..., LlamaContext], wrong: dict[str, int]
) -> None:
    with pytest.raises(EngineStartError):
        make_context(**wrong)
