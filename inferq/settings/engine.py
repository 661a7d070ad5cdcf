"""The settings of the engines."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CostPreset = Literal["llama2-70b-h100-tp8", "llama2-70b-a100-tp8"]


class Options(BaseModel):
    """Base of the nested groups of settings: frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SimulatedSettings(Options):
    """The engine that computes time instead of tokens."""

    preset: CostPreset = Field(
        "llama2-70b-h100-tp8", description="Cost model: measured model and hardware"
    )
    speedup: float = Field(
        1.0, gt=0, description="Runs this many times faster than the hardware; inf: no waiting"
    )
    total_blocks: int = Field(8192, ge=1, description="KV cache, blocks")
    block_size: int = Field(64, ge=1, description="Tokens in a block")
    max_slots: int = Field(256, ge=1, description="Most requests computed at once")
    max_model_len: int = Field(131_072, ge=2, description="Longest prompt plus answer, tokens")
    vocab_size: int = Field(32_000, ge=2, description="Token ids are below this")
    end_probability: float = Field(
        0.0, ge=0, le=1, description="Chance that a token ends its answer"
    )
    kv_bytes_per_token: int = Field(
        16, ge=0, le=10_000_000, description="What a decode node fetches for each token, bytes"
    )


class LlamaCppSettings(Options):
    """Inference by llama.cpp, in this process."""

    model: str | None = Field(
        None, min_length=1, description="Path of a .gguf file; none: the packaged SmolLM2"
    )
    context_tokens: int = Field(8192, ge=64, description="KV cache, tokens, shared by all requests")
    max_slots: int = Field(32, ge=1, le=256, description="Most requests computed at once")
    block_size: int = Field(32, ge=1, description="Tokens in a block of the accounting")
    threads: int | None = Field(
        None, ge=1, description="Compute threads; none: the cores this process may use"
    )
    gpu_layers: int = Field(0, ge=-1, description="Layers on the GPU; -1: all")


class NoopSettings(Options):
    """The engine that answers at once: for measuring the scheduler alone."""

    tokens_per_output: int = Field(1, ge=1, description="Tokens in each output")
    max_slots: int = Field(512, ge=1, description="Most requests computed at once")
