"""From logits to a token."""

from __future__ import annotations

import math
from collections.abc import Sequence

from inferq.engines.llamacpp.context import LlamaContext
from inferq.engines.llamacpp.handles import Closing, Handle
from inferq.engines.llamacpp.library import library
from inferq.engines.llamacpp.model import LlamaModel
from inferq.engines.llamacpp.structs import SamplerChainParams

# llama.cpp takes this seed as a wish for a random one.
_RANDOM_SEED = 0xFFFFFFFF


class Sampler(Closing):
    """Draws the tokens of one sequence.

    Equal parameters and equal logits give equal tokens, draw by draw. Not for use by two
    threads at once. After ``close`` it raises ``RuntimeError``.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Make the sampler.

        Temperature 0 takes the likeliest token, whatever the others say. ``top_k`` keeps the
        so many likeliest tokens (0: all), ``top_p`` the likeliest whose probabilities add up
        to it (1: all), ``min_p`` those at least that probable relative to the likeliest
        (0: all). Any integer is a seed. Raises ``ValueError`` for a value out of range.
        """
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature must be at least 0, not {temperature}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
        if not 0 <= min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, not {min_p}")
        if top_k < 0:
            raise ValueError(f"top_k must be at least 0, not {top_k}")
        self._vocab_size = model.vocab_size
        self._call = call = library().call
        chain: int = call.llama_sampler_chain_init(SamplerChainParams(no_perf=True))
        # The chain owns what is added to it and frees it along with itself.
        self._handle = Handle(chain, call.llama_sampler_free)
        if temperature == 0:
            call.llama_sampler_chain_add(chain, call.llama_sampler_init_greedy())
            return
        if 0 < top_k < self._vocab_size:
            call.llama_sampler_chain_add(chain, call.llama_sampler_init_top_k(top_k))
        if top_p < 1:
            call.llama_sampler_chain_add(chain, call.llama_sampler_init_top_p(top_p, 1))
        if min_p > 0:
            call.llama_sampler_chain_add(chain, call.llama_sampler_init_min_p(min_p, 1))
        call.llama_sampler_chain_add(chain, call.llama_sampler_init_temp(temperature))
        call.llama_sampler_chain_add(chain, call.llama_sampler_init_dist(seed % _RANDOM_SEED))

    def sample(self, context: LlamaContext, index: int, banned: Sequence[int] = ()) -> int:
        """Draw a token from the logits at ``index`` of the last step of ``context``.

        The ``banned`` tokens are not drawn this time. Raises ``ValueError`` when there are no
        logits at the index or a banned token is not in the vocabulary.
        """
        with context.using() as pointer, self._handle.lock:
            chain = self._handle.pointer("sampler")
            logits = context.logits_ptr(index)
            for token in banned:
                # Outside of the vocabulary lies foreign memory.
                if not 0 <= token < self._vocab_size:
                    raise ValueError(f"banned token {token} is not in the vocabulary")
            kept = [(token, logits[token]) for token in banned]
            for token in banned:
                logits[token] = -math.inf
            drawn: int = self._call.llama_sampler_sample(chain, pointer, index)
            for token, value in kept:
                logits[token] = value
            return drawn

    def close(self) -> None:
        """Free the sampler; does nothing the second time."""
        self._handle.free()
