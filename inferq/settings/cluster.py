"""The settings of nodes and producers that share a Redis."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inferq.settings.engine import Options

Order = Literal["fcfs", "spt_ageing"]
Role = Literal["mixed", "prefill", "decode"]


class ClusterSettings(Options):
    """How nodes hold, exchange and give back work (global, splitwise)."""

    lease_ttl_s: float = Field(
        3.0,
        ge=0.2,
        le=3600,
        description="A node that was not heard of for this long loses its requests, seconds",
    )
    max_attempts: int = Field(
        5, ge=1, le=1000, description="Times a request is started before it counts as poisonous"
    )
    order: Order = Field(
        "fcfs",
        description="Within a priority: fcfs, or spt_ageing (shortest prompt first, with ageing)",
    )
    ageing_tokens_per_s: float = Field(
        1000.0,
        ge=0,
        allow_inf_nan=False,
        description="With spt_ageing, a prompt counts this much shorter for each second it waits",
    )
    steal_after_s: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="A request that waits this long at a node may be stolen whatever its load",
    )
    stall_s: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="A node whose engine makes no progress for this long takes nothing, seconds",
    )
    drain_timeout_s: float = Field(
        30.0,
        ge=0,
        allow_inf_nan=False,
        description="A node that stops finishes for this long, then hands back, seconds",
    )
    claim_batch: int = Field(
        64, ge=1, le=1000, description="Most requests taken from a queue in one Redis call"
    )
    flush_s: float = Field(
        0.003,
        ge=0,
        le=1,
        description="Outputs after the first of a request are collected for this long, seconds",
    )
    origin_ttl_s: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="Outputs for a producer that is gone are kept for this long, seconds",
    )
    max_stream_entries: int = Field(
        10_000, ge=10, description="Most unread batches of outputs kept in Redis for a producer"
    )
    max_waiting: int = Field(
        1_000_000, ge=1, description="Most requests that wait in one queue of the topic"
    )
    max_dead_letters: int = Field(
        10_000, ge=1, description="Most dead letters kept; the oldest go first"
    )
    max_ended: int = Field(
        10_000, ge=10, description="Most ended requests of which where and when they ran is kept"
    )
    redis_timeout_s: float = Field(
        5.0, ge=0.1, le=600, description="A Redis that answers nothing for this long is away"
    )
