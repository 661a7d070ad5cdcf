"""How a prefill server and a decode server meet: what the two requests say of each other.

Sequential (vLLM): prefill's answer describes the KV cache, and decode's request repeats that.
Concurrent (SGLang, FastDeploy): both requests say the same, before either has begun.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from inferq.engines.openai.sse import BadStream
from inferq.errors import EngineError, InvalidRequest, SettingsError
from inferq.messages import Handoff, Request
from inferq.settings import OpenAISettings, Settings
from inferq.settings.openai import FastDeployInstance

#: Largest description of a KV cache, bytes of JSON: it travels through the queue.
MAX_KV_BYTES = 1_048_576
#: Bits of a bootstrap room. SGLang takes 63, but not all that reads JSON on the way does.
ROOM_BITS = 53
_SGLANG = {"bootstrap_host": str, "bootstrap_port": int, "bootstrap_room": int}
_DISAGGREGATE_INFO = {
    "prefill_ip": str,
    "decode_ip": str,
    "prefill_connector_port": int,
    "decode_connector_port": int,
    "decode_device_ids": list,
    "decode_rdma_ports": list,
    "transfer_protocol": str,
    "decode_tp_size": int,
}


def upstream_id(request: Request) -> str:
    """A name for the request at the servers: each attempt has its own, both sides the same."""
    return f"{request.request_id}-{secrets.token_hex(8)}"


class Early(NamedTuple):
    """The first token, when the prefill node has sent it already; decode must begin with it."""

    token_id: int
    text: str


# Sequential: vLLM.


def remote_decode(body: dict[str, Any]) -> dict[str, Any]:
    """The request to a vLLM that keeps the KV cache for another one."""
    body = {
        **body,
        "stream": False,
        "max_tokens": 1,
        "kv_transfer_params": {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        },
    }
    del body["stream_options"]
    if body.pop("min_tokens", 0) > 1:
        # Its one token must not look like an end; decode samples it again, and may not end there.
        body["ignore_eos"] = True
        body.pop("stop", None)
        body.pop("stop_token_ids", None)
    return body


def kept_kv(answer: bytes, name: str, early: Early | None) -> dict[str, Any]:
    """The handoff's ``kv`` from the answer to ``remote_decode``.

    Raises:
        EngineError: the server keeps no KV cache.
    """
    params = json.loads(answer).get("kv_transfer_params")
    if not isinstance(params, dict) or params.get("do_remote_prefill") is not True:
        raise EngineError(
            "the server kept no KV cache for a decode node: it needs --kv-transfer-config"
        )
    if len(json.dumps(params)) > MAX_KV_BYTES:
        raise BadStream(f"the server's kv_transfer_params exceed {MAX_KV_BYTES} bytes")
    return {"kv_transfer_params": params, "name": name, "early": early and list(early)}


def remote_prefill(handoff: Handoff) -> tuple[dict[str, Any], str, Early | None]:
    """What decode's request adds, its name, and the token that was sent early.

    Raises:
        InvalidRequest: the handoff is not from a vLLM.
    """
    kv = handoff.kv
    params, name, early = kv.get("kv_transfer_params"), kv.get("name"), kv.get("early")
    if not isinstance(params, dict) or not isinstance(name, str) or not name.isascii():
        raise InvalidRequest("handoff.kv", "is not what a node in front of a vLLM hands off")
    if early is None:
        return {"kv_transfer_params": params}, name, None
    if not isinstance(early, list) or [type(part) for part in early] != [int, str]:
        raise InvalidRequest("handoff.kv.early", "is a token id and its text")
    return {"kv_transfer_params": params}, name, Early(*early)


# Concurrent: SGLang and FastDeploy.


class SGLangPair:
    """Both servers meet at the prefill server's bootstrap address, in a room of their own."""

    def __init__(self, settings: OpenAISettings) -> None:
        self._host = settings.bootstrap_host or _host_of(settings.base_url)
        self._port = settings.bootstrap_port

    def meet(self, request: Request) -> dict[str, Any]:
        """A new room, which nobody can guess."""
        del request
        return {
            "bootstrap_host": self._host,
            "bootstrap_port": self._port,
            "bootstrap_room": secrets.randbits(ROOM_BITS),
        }

    def fields(self, kv: dict[str, Any]) -> dict[str, Any]:
        """What both requests say.

        Raises:
            InvalidRequest: the handoff is not from an SGLang.
        """
        return _checked(kv, _SGLANG, "handoff.kv")


class FastDeployPair:
    """Prefill asks decode for blocks and sends it cache and token, so both addresses are needed."""

    def __init__(self, settings: OpenAISettings, role: str) -> None:
        self._prefill = settings.fastdeploy_prefill
        self._decode = settings.fastdeploy_decode
        needed = {
            "prefill": ("fastdeploy_prefill", "fastdeploy_decode"),
            "decode": ("fastdeploy_decode",),
        }
        for name in needed.get(role, ()):
            if not getattr(settings, name).host_ip:
                raise SettingsError(
                    f"openai.{name}.host_ip: a {role} node in front of FastDeploy needs it",
                    [f"openai.{name}.host_ip"],
                )
        if self._decode.tp_size not in (1, self._prefill.tp_size):
            raise SettingsError(
                f"openai.fastdeploy_decode.tp_size={self._decode.tp_size}: must be 1 or "
                f"fastdeploy_prefill's, {self._prefill.tp_size}",
                ["openai.fastdeploy_decode.tp_size"],
            )

    def meet(self, request: Request) -> dict[str, Any]:
        """The two addresses, and the request's name at both.

        Raises:
            EngineError: the settings name no pair.
        """
        prefill, decode = self._prefill, self._decode
        if not prefill.host_ip or not decode.host_ip:
            raise EngineError(
                "openai.fastdeploy_prefill and openai.fastdeploy_decode name no pair of servers"
            )
        info = {
            "prefill_ip": prefill.host_ip,
            "decode_ip": decode.host_ip,
            "prefill_connector_port": prefill.connector_port,
            "decode_connector_port": decode.connector_port,
            "decode_device_ids": [str(device) for device in decode.device_ids],
            "decode_rdma_ports": [str(port) for port in decode.rdma_ports],
            "transfer_protocol": _protocol(prefill, decode),
            "decode_tp_size": decode.tp_size,
        }
        return {"disaggregate_info": info, "request_id": upstream_id(request)}

    def fields(self, kv: dict[str, Any]) -> dict[str, Any]:
        """What both requests say.

        Raises:
            InvalidRequest: the handoff is not from a FastDeploy.
            EngineError: it is for another decode server.
        """
        fields = _checked(kv, {"disaggregate_info": dict, "request_id": str}, "handoff.kv")
        info = _checked(fields["disaggregate_info"], _DISAGGREGATE_INFO, "handoff.kv.info")
        there = info["decode_ip"], info["decode_connector_port"]
        if there != (self._decode.host_ip, self._decode.connector_port):
            raise EngineError(
                f"the prefill node is paired with the decode server {there[0]}:{there[1]}"
            )
        return fields


def _protocol(prefill: FastDeployInstance, decode: FastDeployInstance) -> str:
    is_near = prefill.host_ip == decode.host_ip and prefill.tp_size == decode.tp_size
    both = set(prefill.transfer_protocol) & set(decode.transfer_protocol)
    if is_near and "ipc" in both:
        return "ipc"
    if "rdma" in both:
        return "rdma"
    raise EngineError("the two FastDeploy servers have no transfer protocol in common")


def _checked(kv: dict[str, Any], kinds: dict[str, type], name: str) -> dict[str, Any]:
    if set(kv) != set(kinds) or any(type(kv[key]) is not kind for key, kind in kinds.items()):
        raise InvalidRequest(name, f"must have {', '.join(kinds)} of the right types")
    return dict(kv)


def _host_of(url: str) -> str:
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host


def pair_of(settings: Settings) -> SGLangPair | FastDeployPair | None:
    """How this node's server meets another; None where it is sequential, or does not.

    Raises:
        SettingsError: a setting that the role needs is missing.
    """
    if settings.openai.flavour == "sglang":
        return SGLangPair(settings.openai)
    if settings.openai.flavour == "fastdeploy":
        return FastDeployPair(settings.openai, settings.role)
    return None
