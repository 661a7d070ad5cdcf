"""The admission rule: what a node may take now.

This is the reference's rule: take while the needed blocks fit the free ones; with chunked
prefill bound the number of prefills, without it their tokens, but always allow one.
"""

from __future__ import annotations

from typing import NamedTuple

from inferq.engines.base import Capacity
from inferq.settings import AdmissionSettings

#: A prompt is long from this share of the model's length on, when no threshold is set.
LONG_SHARE = 0.04


class Size(NamedTuple):
    """What is known of a waiting request before it is taken, in tokens."""

    prompt_tokens: int
    max_tokens: int


class Load(NamedTuple):
    """What the node has taken already, from its live claims.

    ``unseen_blocks``, ``unseen_slots``: of claims that the engine does not count yet. The
    others: of claims whose prefill has not ended.
    """

    unseen_blocks: int = 0
    unseen_slots: int = 0
    prefills: int = 0
    long_prefills: int = 0
    prefill_tokens: int = 0


class AdmissionRule:
    """The rule for one engine; ``budget`` makes what is spent in one look at the queues."""

    def __init__(self, settings: AdmissionSettings, capacity: Capacity) -> None:
        self.settings = settings
        self.block_size = capacity.block_size
        self.total_blocks = capacity.total_blocks
        #: Longest prompt plus answer that can be held at all, tokens.
        self.longest = min(capacity.max_model_len, self.total_blocks * self.block_size)
        self._batched_tokens = settings.max_num_batched_tokens or capacity.tokens_per_batch
        self.long_from = settings.long_prefill_token_threshold or max(
            1, int(capacity.max_model_len * LONG_SHARE)
        )

    def blocks(self, size: Size) -> int:
        """Blocks that a request needs: its prompt's, and the reserve for its answer."""
        prompt_blocks = -(-size.prompt_tokens // self.block_size)
        return min(prompt_blocks + self.settings.reserved_output_blocks, self.total_blocks)

    def is_long(self, size: Size) -> bool:
        """Whether its prefill counts as a long one."""
        return size.prompt_tokens > self.long_from

    def never_fits(self, size: Size, *, hands_off: bool = False) -> bool:
        """Whether no amount of waiting would help. The engine then says why not.

        ``hands_off``: the request leaves with its first token.
        """
        return size.prompt_tokens + (1 if hands_off else size.max_tokens) > self.longest

    def budget(self, capacity: Capacity, load: Load) -> Budget:
        """What may be taken now."""
        return Budget(
            self,
            free_blocks=capacity.free_blocks - load.unseen_blocks,
            free_slots=capacity.free_slots - load.unseen_slots,
            prefills=self.settings.max_num_partial_prefills - load.prefills,
            long_prefills=self.settings.max_long_partial_prefills - load.long_prefills,
            prefill_tokens=self._batched_tokens - load.prefill_tokens,
            idle=load.prefills == 0,
        )


class Budget:
    """What is left to take in one look at the queues.

    ``idle``: nothing is in prefill.
    """

    def __init__(
        self,
        rule: AdmissionRule,
        *,
        free_blocks: int,
        free_slots: int,
        prefills: int,
        long_prefills: int,
        prefill_tokens: int,
        idle: bool,
    ) -> None:
        self._rule = rule
        self.blocks = free_blocks
        self.slots = free_slots
        self.prefills = prefills
        self.long_prefills = long_prefills
        self.prefill_tokens = prefill_tokens
        self.idle = idle

    @property
    def has_slots(self) -> bool:
        """Whether anything could be taken at all."""
        return self.slots > 0

    def fits(self, size: Size) -> bool:
        """Whether a request may be taken with what is left."""
        if self.slots < 1 or self._rule.blocks(size) > self.blocks:
            return False
        if not self._rule.settings.enable_chunked_prefill:
            return self.idle or size.prompt_tokens <= self.prefill_tokens
        return self.prefills > 0 and (self.long_prefills > 0 or not self._rule.is_long(size))

    def spend(self, size: Size, *, is_prefilled: bool = False) -> None:
        """Take a request that fits. ``is_prefilled``: it needs no prefill here."""
        self.slots -= 1
        self.blocks -= self._rule.blocks(size)
        if is_prefilled:
            return
        self.prefill_tokens -= size.prompt_tokens
        self.prefills -= 1
        self.long_prefills -= self._rule.is_long(size)
        self.idle = False
