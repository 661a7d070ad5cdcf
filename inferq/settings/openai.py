"""The settings of a node in front of an OpenAI-compatible server."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from inferq.settings.engine import Options

Flavour = Literal["plain", "llamacpp", "vllm", "sglang", "fastdeploy"]
#: No user and password in it: addresses are logged.
Address = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$")]


def _as_text(value: Any) -> str:
    """Take anything for a key: an error about it would have to show it."""
    return value if isinstance(value, str) else str(value)


class FastDeployInstance(Options):
    """A FastDeploy server of a pair, as it was started; the names are those of its own router."""

    host_ip: str = Field("", description="Its --host address; none: there is no such server")
    connector_port: int = Field(0, ge=0, le=65535, description="Its --pd-comm-port")
    transfer_protocol: tuple[Literal["ipc", "rdma"], ...] = Field(
        ("ipc", "rdma"), description="Its --cache-transfer-protocol"
    )
    rdma_ports: tuple[int, ...] = Field((), description="Its --rdma-comm-ports")
    device_ids: tuple[int, ...] = Field((), description="Its devices")
    tp_size: int = Field(1, ge=1, description="Its --tensor-parallel-size")


class OpenAISettings(Options):
    """Inference by a server that speaks OpenAI's protocol: vLLM, SGLang, FastDeploy, llama-server.

    `fastdeploy_prefill` and `fastdeploy_decode` are tables with the fields `host_ip`,
    `connector_port`, `transfer_protocol`, `rdma_ports`, `device_ids` and `tp_size`.
    """

    base_url: Address = Field(
        "http://127.0.0.1:8000/v1", description="Address of the server's API, with its /v1"
    )
    flavour: Flavour = Field(
        "plain", description="What the server is: which fields it takes and what it measures"
    )
    model: str | None = Field(
        None, min_length=1, description="Name of the model; none: the only one that is served"
    )
    api_key: Annotated[str, BeforeValidator(_as_text)] = Field(
        "", repr=False, description="Key that the server wants, never printed"
    )
    api_key_file: str | None = Field(
        None, min_length=1, description="File with the key, read at start, instead of `api_key`"
    )
    verify: bool = Field(True, description="Check the server's TLS certificate")
    ca_file: str | None = Field(
        None, min_length=1, description="Certificates of the authority that the server's is from"
    )
    cert_file: str | None = Field(
        None, min_length=1, description="Certificate that this node shows to the server"
    )
    key_file: str | None = Field(None, min_length=1, description="Private key of `cert_file`")
    start_timeout_s: float = Field(
        60.0, ge=0, le=86_400, description="The server may take this long to come up, seconds"
    )
    connect_timeout_s: float = Field(5.0, gt=0, le=600, description="Longest connect, seconds")
    read_timeout_s: float = Field(
        300.0, gt=0, le=86_400, description="Longest silence of the server in an answer, seconds"
    )
    retries: int = Field(
        3, ge=0, le=20, description="Times a request is sent again that the server did not take"
    )
    retry_backoff_s: float = Field(
        0.1, ge=0, le=60, description="Pause before the first retry, seconds; each next is doubled"
    )
    max_connections: int | None = Field(
        None, ge=1, description="Most connections for requests; none: as many as `max_slots`"
    )
    poll_s: float = Field(
        1.0, ge=0.05, le=600, description="Period of looking whether and how busy it is, seconds"
    )
    metrics_url: Address | None = Field(
        None, description="Its metrics; none: /metrics beside the API, where the flavour has it"
    )
    max_slots: int = Field(64, ge=1, description="Most requests computed at once")
    block_size: int = Field(
        16, ge=1, description="Tokens in a block, where the server does not say"
    )
    total_blocks: int | None = Field(
        None, ge=1, description="KV cache, blocks, where the server does not say; none: no bound"
    )
    max_model_len: int | None = Field(
        None, ge=2, description="Longest prompt plus answer, tokens; none: the server's, else 8192"
    )
    tokens_per_batch: int = Field(8192, ge=1, description="Most prompt tokens in prefill at once")
    bytes_per_token: float = Field(
        4.0, gt=0, le=100, description="First guess for text; the server's counts correct it"
    )
    exact_counts: bool = Field(
        False, description="Have the server count the tokens of text, where it can"
    )
    early_first_token: bool = Field(
        True, description="vLLM: the prefill node sends the first token, decode must repeat it"
    )
    bootstrap_host: str | None = Field(
        None, min_length=1, description="SGLang, prefill: its address for decode; none: base_url's"
    )
    bootstrap_port: int = Field(
        8998, ge=1, le=65535, description="SGLang, prefill: its --disaggregation-bootstrap-port"
    )
    fastdeploy_prefill: FastDeployInstance = Field(
        FastDeployInstance(), description="FastDeploy: the prefill server of the pair"
    )
    fastdeploy_decode: FastDeployInstance = Field(
        FastDeployInstance(), description="FastDeploy: the decode server of the pair"
    )
