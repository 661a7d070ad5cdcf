"""Nodes and settings for tests of placement."""

from __future__ import annotations

from random import Random
from typing import Any

from inferq.routing.placement import Ask, NodeInfo, Phase, Placer, Snapshot, create_placer
from inferq.settings import PlacementSettings

NOW_MS = 1_000_000.0
ASK = Ask(1000, 100)


def node(name: str, **fields: Any) -> NodeInfo:
    """A mixed node that is ready and large."""
    usual: dict[str, Any] = {
        "role": "mixed",
        "ready": True,
        "lease_until_ms": NOW_MS + 3000,
        "longest": 8192,
    }
    return NodeInfo(name, **{**usual, **fields})


def snapshot(*nodes: NodeInfo) -> Snapshot:
    """These nodes, now."""
    return Snapshot(nodes, NOW_MS)


def placer(policy: str, phase: Phase = "prefill", seed: int = 1, *nodes: NodeInfo) -> Placer:
    """A placer with this policy and, if there are any, these nodes."""
    settings = PlacementSettings(prefill_policy=policy, decode_policy=policy)
    made = create_placer(settings, phase, Random(seed))
    made.refresh(snapshot(*nodes))
    return made
