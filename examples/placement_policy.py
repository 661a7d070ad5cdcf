"""Placement policies of one's own.

INFERQ_PLACEMENT__DECODE_POLICY=placement_policy:near_the_cache
INFERQ_PLACEMENT__PREFILL_POLICY=placement_policy:SmallFirst
"""

from __future__ import annotations

from random import Random

from inferq.routing.placement import (
    Ask,
    Candidate,
    NodeInfo,
    Policy,
    Pool,
    Profile,
    Scored,
    Shortlist,
    Weighted,
)

#: A same-host node may have this many more tokens to do than one across the network.
WORTH_TOKENS = 20_000
SMALL_TOKENS = 512


def same_host(node: NodeInfo, ask: Ask) -> float:
    """Shared memory is faster than the network."""
    return 1.0 if node.host == ask.host else 0.0


def has_a_block(node: NodeInfo, ask: Ask) -> str:
    """A filter says why not, or nothing."""
    del ask
    return "" if node.free_blocks else "no free block"


def near_the_cache(profile: Profile, random: Random) -> Policy:
    """For decode: the host where the KV cache is, but not at any price."""
    return Scored(
        profile,
        random,
        filters=[has_a_block],
        scorers=[Weighted(same_host)],
        tokens_per_point=WORTH_TOKENS,
    )


class SmallFirst(Policy):
    """For prefill: short prompts go to the nodes named ``small-...``, the others to any."""

    def shortlist(self, pool: Pool, ask: Ask) -> Shortlist:
        """Up to eight names; none: the request waits in the shared queue."""
        if ask.prompt_tokens > SMALL_TOKENS:
            return Shortlist()
        small = [node.name for node in pool.nodes if node.name.startswith("small-")][:8]
        return Shortlist(tuple(Candidate(name) for name in small))
