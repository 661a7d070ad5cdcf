"""What the servers do differently."""

from __future__ import annotations

from typing import NamedTuple

from inferq.engines.base import Family
from inferq.settings.openai import Flavour


class Gauges(NamedTuple):
    """Names of a server's metrics; of several names the first one that is there counts.

    ``usage`` is the share of the KV cache in use, from 0 to 1. ``tokens`` is the size of the KV
    cache in tokens. ``config`` is a metric whose labels ``blocks_label`` and ``size_label`` tell
    the number of blocks and the tokens in one.
    """

    running: str
    waiting: str
    usage: tuple[str, ...] = ()
    tokens: str = ""
    config: str = ""
    blocks_label: str = ""
    size_label: str = "block_size"


class FlavourTraits(NamedTuple):
    """One kind of server.

    ``refused`` are fields of a Request that it cannot obey. ``all_top_k`` is its word for "keep
    all tokens". ``ids`` is where its stream has token ids: in the choice (``token_ids``), in the
    choice or its delta (``completion_token_ids``), in the log probabilities (``logprobs``), or
    nowhere. ``keeps_alive``: a connection can be used again without the risk that it is being
    closed (uvicorn closes idle ones only, after 5 seconds).
    """

    refused: frozenset[str] = frozenset()
    all_top_k: int | None = None
    ids: str = ""
    health: str = "/health"
    tokenize: str = ""
    gauges: Gauges | None = None
    family: Family = "sequential"
    protocols: tuple[str, ...] = ()
    keeps_alive: bool = False


FLAVOURS: dict[Flavour, FlavourTraits] = {
    "plain": FlavourTraits(
        refused=frozenset({"top_k", "min_tokens", "stop_token_ids", "ignore_eos"}),
        health="",
    ),
    "llamacpp": FlavourTraits(
        refused=frozenset({"min_tokens", "stop_token_ids"}),
        all_top_k=0,
        ids="logprobs",
        tokenize="/tokenize",
        gauges=Gauges("llamacpp:requests_processing", "llamacpp:requests_deferred"),
    ),
    "vllm": FlavourTraits(
        all_top_k=-1,
        ids="token_ids",
        tokenize="/tokenize",
        gauges=Gauges(
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
            config="vllm:cache_config_info",
            blocks_label="num_gpu_blocks",
        ),
        protocols=("nixl",),
        keeps_alive=True,
    ),
    "sglang": FlavourTraits(
        all_top_k=-1,
        ids="token_ids",
        tokenize="/v1/tokenize",
        gauges=Gauges(
            "sglang:num_running_reqs",
            "sglang:num_queue_reqs",
            ("sglang:token_usage",),
            tokens="sglang:max_total_num_tokens",
        ),
        family="concurrent",
        protocols=("sglang",),
        keeps_alive=True,
    ),
    "fastdeploy": FlavourTraits(
        refused=frozenset({"ignore_eos"}),
        ids="completion_token_ids",
        gauges=Gauges(
            "fastdeploy:num_requests_running",
            "fastdeploy:num_requests_waiting",
            ("fastdeploy:gpu_cache_usage_perc",),
            config="fastdeploy:cache_config_info",
            blocks_label="total_block_num",
        ),
        family="concurrent",
        protocols=("ipc", "rdma"),
        keeps_alive=True,
    ),
}
