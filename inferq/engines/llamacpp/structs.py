"""Layouts of the C structs that cross the border to llama.cpp.

llama.cpp ships no stable binary interface: fields are added in the middle of its parameter
structs. ``wrong_defaults`` compares the defaults that the library fills in with those known
for this layout, so that a library with another layout is refused instead of misread.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint8, c_uint32, c_void_p

LOAD_MODE_READ = 0
LOAD_MODE_MMAP = 1

# A library newer than this layout may return a larger struct. The tail gives it room, so that
# calling it to find out does not overwrite foreign memory.
_TAIL = ("unknown_tail", c_uint8 * 256)


class ModelParams(ctypes.Structure):
    """``llama_model_params``: how to load a model file."""

    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
        _TAIL,
    ]


class ContextParams(ctypes.Structure):
    """``llama_context_params``: sizes and switches of a context."""

    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        # The callbacks that this binding never sets; only their size matters here.
        ("callbacks", c_void_p * 3),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
        _TAIL,
    ]


class Batch(ctypes.Structure):
    """``llama_batch``: the tokens of one decode call; all arrays have ``n_tokens`` items."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", ctypes.POINTER(c_int8)),
    ]


class SamplerChainParams(ctypes.Structure):
    """``llama_sampler_chain_params``."""

    _fields_ = [("no_perf", c_bool)]


class ChatMessage(ctypes.Structure):
    """``llama_chat_message``: two C strings."""

    _fields_ = [("role", c_char_p), ("content", c_char_p)]


_MODEL_DEFAULTS = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "main_gpu": 0,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
    "no_alloc": False,
}
_CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_outputs_max": 0,
    "n_threads": 4,
    "n_threads_batch": 4,
    "rope_scaling_type": -1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1.0,
    "type_k": 1,
    "type_v": 1,
    "embeddings": False,
    "offload_kqv": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
    "n_samplers": 0,
}


def wrong_defaults(model: ModelParams, context: ContextParams) -> list[str]:
    """Return the fields whose default is not the known one, as ``"n_ctx is 0, not 512"``.

    An empty list means that the library uses the layouts of this module.
    """
    return [
        f"{name} is {getattr(params, name)!r}, not {expected!r}"
        for params, defaults in ((model, _MODEL_DEFAULTS), (context, _CONTEXT_DEFAULTS))
        for name, expected in defaults.items()
        if getattr(params, name) != expected
    ]
