"""An engine that spends the time of real hardware and makes up the tokens.

Tokens follow from the prompt, the seed and their position alone, so an answer is the same
however the request was batched, preempted, handed off or retried.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
from collections.abc import Sequence

from inferq.engines.batching import BatchingEngine, Limits, Row
from inferq.engines.costs import PRESETS
from inferq.errors import EngineStepError
from inferq.messages import Request
from inferq.settings import Settings, SimulatedSettings

#: Id 0 ends an answer; no other token does.
END_TOKEN = 0
TOKENS_PER_BATCH = 8192
_ONSETS = ("b", "d", "f", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "st", "tr", "sh")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
#: Shorter waits than this are carried over to the next step: timers are no finer.
_SHORTEST_SLEEP_S = 0.001
_NOISE_BYTES = 65_536
#: Up to this size a cache is made sooner than a thread is asked to.
_AT_ONCE_BYTES = 65_536
_MASK = 2**64 - 1


class SimulatedExecutor:
    """Waits as long as the cost model says, sped up by ``speedup``."""

    def __init__(self, settings: SimulatedSettings) -> None:
        self._settings = settings
        self._costs = PRESETS[settings.preset]
        self._keys: dict[int, int] = {}
        self._debt_s = 0.0

    async def start(self) -> Limits:
        """There is nothing to load."""
        s = self._settings
        return Limits(
            s.block_size,
            s.total_blocks,
            s.max_slots,
            TOKENS_PER_BATCH,
            s.max_model_len,
            s.vocab_size,
        )

    async def stop(self) -> None:
        """Forget every slot."""
        self._keys.clear()

    def tokenize(self, request: Request) -> Sequence[int]:
        """One token a byte of text."""
        if request.prompt_token_ids is not None:
            return request.prompt_token_ids
        if request.prompt is not None:
            text = request.prompt
        else:
            text = "".join(f"{m.role}: {m.content}\n" for m in request.messages or ())
        return [1 + byte % (self._settings.vocab_size - 1) for byte in text.encode()]

    def piece(self, token: int) -> bytes:
        """A made-up word of two syllables."""
        first, second = token % 128, token // 128 % 128
        parts = (
            _ONSETS[first % 16],
            _VOWELS[first // 16],
            _ONSETS[second % 16],
            _VOWELS[second // 16],
        )
        return (" " + "".join(parts)).encode()

    def is_end(self, token: int) -> bool:
        """Only END_TOKEN is one."""
        return token == END_TOKEN

    def open_slot(self, slot: int, request: Request, prompt: Sequence[int]) -> None:
        """Derive the answer's key from prompt and seed."""
        data = struct.pack(f"<q{len(prompt)}I", request.seed or 0, *prompt)
        self._keys[slot] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")

    def close_slot(self, slot: int) -> None:
        """Forget the slot."""
        self._keys.pop(slot, None)

    def evict(self, slot: int) -> None:
        """There is no cache to drop."""

    async def run(self, rows: Sequence[Row]) -> list[int | None]:
        """Wait for the step's time, then make up a token for each row that samples."""
        # Before the wait: a sequence that is aborted during it takes its key along.
        keys = [self._keys[row.slot] for row in rows]
        await self._spend(rows)
        return [
            self._sample(row, key) if row.samples else None
            for row, key in zip(rows, keys, strict=True)
        ]

    async def kv_bytes(self, slot: int, tokens: int) -> int:
        """So many a token."""
        del slot
        return tokens * self._settings.kv_bytes_per_token

    async def export_kv(self, slot: int, tokens: int, memory: memoryview) -> None:
        """Bytes that follow from prompt and seed, as a real cache does."""
        key = self._keys[slot]
        if len(memory) <= _AT_ONCE_BYTES:
            memory[:] = _kv(key, tokens, len(memory))
        else:
            await asyncio.to_thread(_write_kv, key, tokens, memory)

    async def import_kv(self, slot: int, tokens: int, memory: memoryview) -> None:
        """Refuse any other bytes."""
        key, size = self._keys[slot], await self.kv_bytes(slot, tokens)
        if len(memory) <= _AT_ONCE_BYTES:
            expected = _kv(key, tokens, size)
        else:
            expected = await asyncio.to_thread(_kv, key, tokens, size)
        if memory != expected:
            raise EngineStepError("this is not the KV cache of these tokens")

    async def _spend(self, rows: Sequence[Row]) -> None:
        decoding = [row for row in rows if len(row.tokens) == 1]
        prefill_tokens = sum(len(row.tokens) for row in rows) - len(decoding)
        cached = sum(row.position for row in decoding)
        step_ms = self._costs.step_ms(prefill_tokens, len(decoding), cached)
        self._debt_s += step_ms / 1000 / self._settings.speedup
        if self._debt_s < _SHORTEST_SLEEP_S:
            await asyncio.sleep(0)
            return
        started = time.monotonic()
        await asyncio.sleep(self._debt_s)
        self._debt_s -= time.monotonic() - started

    def _sample(self, row: Row, key: int) -> int:
        noise = _mix(key + (row.position + len(row.tokens)) * 0x9E3779B97F4A7C15)
        if not row.ban_end and (noise >> 11) / 2**53 < self._settings.end_probability:
            return END_TOKEN
        return 1 + noise % (self._settings.vocab_size - 1)


def _kv(key: int, tokens: int, size: int) -> bytes:
    """Noise, which repeats itself: making it must cost less than moving it."""
    noise = hashlib.shake_128(struct.pack("<QQ", key, tokens)).digest(min(size, _NOISE_BYTES))
    return (noise * (1 + size // _NOISE_BYTES))[:size]


def _write_kv(key: int, tokens: int, memory: memoryview) -> None:
    memory[:] = _kv(key, tokens, len(memory))


def _mix(x: int) -> int:
    """SplitMix64's finalizer: spreads a counter over 64 bits (Steele, Lea, Flood 2014)."""
    x &= _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def create(settings: Settings) -> BatchingEngine:
    """The simulated engine as the settings describe it."""
    return BatchingEngine(
        SimulatedExecutor(settings.simulated),
        reserved_output_blocks=settings.admission.reserved_output_blocks,
    )
