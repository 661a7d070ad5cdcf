"""Refuses what no amount of waiting would make fit."""

from __future__ import annotations

from collections.abc import Sequence

from inferq.engines.batching.blocks import blocks_for
from inferq.engines.batching.executor import Limits
from inferq.errors import InvalidRequest, RequestTooLarge
from inferq.messages import Request


def check_fit(
    request: Request,
    prompt: Sequence[int],
    limits: Limits,
    *,
    produced: Sequence[int] = (),
    whole: bool,
) -> None:
    """Check a request that is to be computed here, its ``whole`` answer or one token of it.

    The model's length bounds prompt and answer wherever they are computed, this KV cache only
    what is computed here.

    Raises:
        InvalidRequest: there is no token, or one beyond the vocabulary, or more were produced
            than were asked for.
        RequestTooLarge: prompt and answer exceed the model's length or the whole KV cache.
    """
    if not prompt:
        raise InvalidRequest("prompt", "has no tokens")
    for field, tokens in (("prompt_token_ids", prompt), ("handoff.token_ids", produced)):
        if tokens and max(tokens) >= limits.vocab_size:
            raise InvalidRequest(
                field, f"{max(tokens)} is beyond the vocabulary of {limits.vocab_size}"
            )
    if len(produced) > request.max_tokens:
        raise InvalidRequest("handoff.token_ids", f"more than max_tokens, {request.max_tokens}")
    answer = request.max_tokens if whole else len(produced) + 1
    cache = limits.total_blocks * limits.block_size
    longest = min(limits.max_model_len, cache)
    fits = (
        len(prompt) + request.max_tokens <= limits.max_model_len
        and blocks_for(len(prompt) + answer, limits.block_size) <= limits.total_blocks
    )
    if not fits:
        raise RequestTooLarge(
            "max_tokens" if len(prompt) < longest else "prompt",
            f"{len(prompt)} prompt tokens and {request.max_tokens} answer tokens exceed "
            f"the {longest} tokens that this model and its KV cache hold",
        )
