"""Prefill and decode: two profiles of the same placement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from inferq.routing.placement.nodes import Ask, LoadName, NodeInfo, Snapshot

Phase = Literal["prefill", "decode"]


class Profile(NamedTuple):
    """What differs between the two phases.

    ``roles``: of nodes that do it. ``tokens``: the load in tokens. ``pledge``: what a request
    adds to that load. ``rate``: tokens a second of a node, 0: unknown.
    """

    phase: Phase
    roles: frozenset[str]
    tokens: LoadName
    pledge: Callable[[Ask], int]
    rate: Callable[[NodeInfo], float]


PREFILL = Profile(
    "prefill",
    frozenset({"prefill", "mixed"}),
    "prefill_tokens",
    lambda ask: ask.prompt_tokens,
    lambda node: node.prefill_tokens_per_s,
)
DECODE = Profile(
    "decode",
    frozenset({"decode", "mixed"}),
    "decode_tokens",
    lambda ask: ask.total_tokens,
    lambda node: node.decode_tokens_per_s,
)
PROFILES: dict[Phase, Profile] = {"prefill": PREFILL, "decode": DECODE}


def refusal(node: NodeInfo, profile: Profile, now_ms: float) -> str:
    """Why the node gets no request at all, in a word or two; empty: it may get some."""
    if node.role not in profile.roles:
        return "another role"
    if node.lease_until_ms <= now_ms:
        return "lease lapsed"
    return "" if node.ready else "not ready"


def explain(snapshot: Snapshot, profile: Profile, ask: Ask) -> str:
    """Why no node can take the request now, in a sentence a person can act on."""
    phase = profile.phase
    refusals = [refusal(node, profile, snapshot.now_ms) for node in snapshot.nodes]
    ready = [n for n, why in zip(snapshot.nodes, refusals, strict=True) if not why]
    if ready:
        largest = max(node.longest for node in ready)
        are = f"{phase} node is" if len(ready) == 1 else f"{phase} nodes are"
        holds = "it holds" if len(ready) == 1 else "the largest holds"
        needs = f"the request needs {ask.total_tokens}"
        return f"{len(ready)} {are} ready, {holds} {largest} tokens; {needs}"
    counts = [(refusals.count(why), why) for why in ("not ready", "lease lapsed")]
    seen = ", ".join(f"{count} {why}" for count, why in counts if count)
    return f"no {phase} node is ready ({seen or 'none is known'})"
