"""What is known of the nodes of a topic at one moment, and what a request asks of them."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: The loads by which nodes can be compared: fields of NodeInfo.
LoadName = Literal["prefill_tokens", "decode_tokens", "decode_requests"]


class NodeInfo(NamedTuple):
    """A node as its record and the load table show it.

    ``role``: prefill, decode or mixed. ``ready``: it takes work (it is neither starting nor
    draining). ``lease_until_ms``: by Redis' clock. ``longest``: the longest prompt plus answer
    that it can hold, tokens. ``prefill_tokens``: of prompts queued and running.
    ``decode_requests``, ``decode_tokens``: queued and running, and the tokens pledged to them.
    Rates are measured by the node; 0: not known yet.
    """

    name: str
    role: str
    ready: bool
    lease_until_ms: float
    host: str = ""
    longest: int = 0
    prefill_tokens: int = 0
    decode_requests: int = 0
    decode_tokens: int = 0
    total_blocks: int = 0
    free_blocks: int = 0
    block_size: int = 1
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0


class Snapshot(NamedTuple):
    """All nodes of a topic, as read at ``now_ms`` of Redis' clock."""

    nodes: tuple[NodeInfo, ...] = ()
    now_ms: float = 0.0


class Ask(NamedTuple):
    """What placement may know of a request. Sizes in tokens.

    ``host``: where its KV cache is, when a decode node is chosen. ``prefixes``: digests of ever
    longer beginnings of its prompt, shortest first, for scorers that know what nodes have cached.
    """

    prompt_tokens: int
    max_tokens: int
    host: str = ""
    prefixes: tuple[bytes, ...] = ()

    @property
    def total_tokens(self) -> int:
        """What a node must be able to hold."""
        return self.prompt_tokens + self.max_tokens
