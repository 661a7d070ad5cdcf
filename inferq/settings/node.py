"""The settings of a node: what it takes, and when it lets go."""

from __future__ import annotations

from pydantic import Field

from inferq.settings.engine import Options


class AdmissionSettings(Options):
    """The rule by which a node takes requests from its queues."""

    reserved_output_blocks: int = Field(
        2, ge=0, description="Blocks kept for the answer of each request"
    )
    max_num_batched_tokens: int | None = Field(
        None, ge=1, description="Most prompt tokens in prefill at once; none: the engine's batch"
    )
    enable_chunked_prefill: bool = Field(
        False, description="Bound prefills by number instead of by tokens"
    )
    max_num_partial_prefills: int = Field(
        1, ge=1, description="Most requests in prefill at once, when chunked"
    )
    max_long_partial_prefills: int = Field(
        1, ge=1, description="Of these, most that are longer than the threshold"
    )
    long_prefill_token_threshold: int = Field(
        0, ge=0, description="Longer prompts are long, tokens; 0: 4 % of the model's length"
    )
    pass_by_s: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Smaller requests may pass one that does not fit for this long, seconds",
    )
    lookahead: int = Field(
        64, ge=1, le=10_000, description="Most waiting requests looked at behind one that waits"
    )


class LimitSettings(Options):
    """Bounds that protect a node from its callers."""

    max_claims: int = Field(1024, ge=1, description="Most requests a node holds at once")
    max_message_bytes: int = Field(
        16_777_216, ge=1024, description="Largest message that is read, bytes"
    )
    max_prompt_tokens: int | None = Field(
        None, ge=1, description="Longest prompt of token ids; none: what the engine holds"
    )
    max_prompt_characters: int | None = Field(
        None, ge=1, description="Longest prompt of text, a conversation's in all; none: no bound"
    )
    max_output_tokens: int | None = Field(
        None, ge=1, description="Longest answer that may be asked for; none: what the engine holds"
    )
    max_stored_results: int = Field(
        10_000, ge=1, description="Most final results kept for stock Celery callers (local)"
    )
