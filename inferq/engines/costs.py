"""How long a step takes on real hardware: cost models fitted to published measurements."""

from __future__ import annotations

from typing import NamedTuple


class CostModel(NamedTuple):
    """Step times in milliseconds, linear or quadratic in tokens.

    prefill of n tokens: ``max(prefill_floor, prefill_base + prefill_token n + prefill_square n^2)``
    decode of b sequences over kv cached tokens: ``decode_base + decode_row b + decode_kv kv``
    """

    prefill_floor: float
    prefill_base: float
    prefill_token: float
    prefill_square: float
    decode_base: float
    decode_row: float
    decode_kv: float

    def prefill_ms(self, tokens: int) -> float:
        """Time to compute ``tokens`` prompt tokens in one step."""
        linear = self.prefill_base + self.prefill_token * tokens
        return max(self.prefill_floor, linear + self.prefill_square * tokens * tokens)

    def decode_ms(self, rows: int, kv_tokens: int) -> float:
        """Time of one token for each of ``rows`` sequences with ``kv_tokens`` cached in all."""
        return self.decode_base + self.decode_row * rows + self.decode_kv * kv_tokens

    def step_ms(self, prefill_tokens: int, rows: int, kv_tokens: int) -> float:
        """Time of a mixed step: its two parts one after the other."""
        prefill = self.prefill_ms(prefill_tokens) if prefill_tokens else 0.0
        return prefill + (self.decode_ms(rows, kv_tokens) if rows else 0.0)


#: Llama-2-70B with tensor parallelism 8: linear fits to the measurements of
#: Mutinifni/splitwise-sim (MIT), Patel et al., "Splitwise", ISCA 2024. The floors are the
#: shortest measured prompt times (256 tokens on H100, 128 on A100).
PRESETS = {
    "llama2-70b-h100-tp8": CostModel(52.5, -1.87, 0.0999, 0.0, 29.91, 0.223, 1.6e-4),
    "llama2-70b-a100-tp8": CostModel(65.1, -31.4, 0.2026, 8.8e-7, 44.24, 0.237, 3.0e-4),
}
