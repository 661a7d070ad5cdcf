"""Stand-ins that hand off: each refuses what its project's protocol does not allow."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, ClassVar

from tests.engines.openai.standin import Bad, Call, StandIn
from tests.engines.openai.wire import event, prompt_length, token_of, word

SAMPLING = frozenset({"top_k", "min_tokens", "stop_token_ids", "return_token_ids"})


class Fabric:
    """What two servers share: the caches that are kept, and the places where they meet."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.fetched: list[str] = []
        self.rooms: dict[Any, Meeting] = {}

    @property
    def leaked(self) -> list[str]:
        """Caches that nobody has fetched."""
        return sorted(self.kept)

    def room(self, key: Any) -> Meeting:
        return self.rooms.setdefault(key, Meeting())


class Meeting:
    """Both sides of one concurrent pair."""

    def __init__(self) -> None:
        self.prompts: dict[str, Any] = {}
        self.here = {"prefill": asyncio.Event(), "decode": asyncio.Event()}
        self.crossed = asyncio.Event()
        self.lost = asyncio.Event()

    async def meet(self, role: str, body: dict[str, Any]) -> None:
        """Wait for the other side, and for the cache."""
        if self.here[role].is_set():
            raise Bad("the room is taken", 500)
        self.prompts[role] = body.get("prompt", body.get("messages"))
        self.here[role].set()
        other = "decode" if role == "prefill" else "prefill"
        await self._unless_lost(self.here[other])
        if self.prompts["prefill"] != self.prompts["decode"]:
            raise Bad("the two sides have different prompts", 500)
        if role == "prefill":
            self.crossed.set()
        else:
            await self._unless_lost(self.crossed)

    async def _unless_lost(self, event_: asyncio.Event) -> None:
        waits = [asyncio.create_task(e.wait()) for e in (event_, self.lost)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if self.lost.is_set():
            raise Bad("the other side has gone", 500)


class PairStandIn(StandIn):
    """A server of a pair: ``role`` is prefill, decode or mixed."""

    def __init__(self, fabric: Fabric | None = None, role: str = "mixed", **more: Any) -> None:
        super().__init__(**more)
        self.fabric = fabric or Fabric()
        self.role = role


class VllmStandIn(PairStandIn):
    """vLLM with the NixlConnector."""

    flavour: ClassVar[str] = "vllm"
    own_fields: ClassVar[frozenset[str]] = SAMPLING | {"ignore_eos", "kv_transfer_params"}
    asked: ClassVar[dict[str, Any]] = {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
    }

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.models[0]["max_model_len"] = 4096
        self.engine_id = secrets.token_hex(8)
        #: The decode server samples another token first, as one with other kernels might.
        self.differs = False
        self.keeps = True

    def name_token(self, choice: dict[str, Any], token: int) -> None:
        choice["token_ids"] = [token]

    async def whole(self, call: Call) -> dict[str, Any]:
        body, params = call.body, call.body.get("kv_transfer_params")
        if params != self.asked:
            raise Bad(f"kv_transfer_params must be {self.asked}, not {params}", 500)
        if body["max_tokens"] != 1 or "x-request-id" not in call.headers:
            raise Bad("a remote prefill has max_tokens 1 and a request id", 500)
        if self.allowed is not None:
            await self.allowed.acquire()
        [(token, reason)] = self.tokens(body)
        answer = event("chat" in call.path, word(token), reason)
        choice = answer["choices"][0]
        if "delta" in choice:
            choice["message"] = choice.pop("delta")
        self.name_token(choice, token)
        answer["usage"] = {"prompt_tokens": prompt_length(body), "completion_tokens": 1}
        answer["kv_transfer_params"] = None
        if reason == "length" and self.keeps:
            answer["kv_transfer_params"] = self._keep(call)
        return answer

    def _keep(self, call: Call) -> dict[str, Any]:
        name = call.headers["x-request-id"]
        length = prompt_length(call.body)
        params = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [list(range(-(-length // 16)))],
            "remote_engine_id": self.engine_id,
            "remote_request_id": name,
            "remote_host": "127.0.0.1",
            "remote_port": 5600,
            "tp_size": 1,
            "remote_num_tokens": length,
        }
        prompt = call.body.get("prompt", call.body.get("messages"))
        self.fabric.kept[name] = {"params": params, "prompt": prompt}
        return params

    async def before_first(self, call: Call) -> None:
        params = call.body.get("kv_transfer_params")
        if params is None:
            return
        name = call.headers.get("x-request-id")
        kept = self.fabric.kept.pop(str(params.get("remote_request_id")), None)
        if kept is None or kept["params"] != params or params["remote_request_id"] != name:
            raise Bad("the remote KV cache is not there", 500)
        if kept["prompt"] != call.body.get("prompt", call.body.get("messages")):
            raise Bad("the remote KV cache is of another prompt", 500)
        self.fabric.fetched.append(name or "")

    def tokens(self, body: dict[str, Any]) -> Any:
        for at, (token, reason) in enumerate(super().tokens(body)):
            other = self.differs and at == 0 and "kv_transfer_params" in body
            yield (token + 1 if other else token), reason


class SGLangStandIn(PairStandIn):
    """SGLang; the bootstrap address is the prefill server's."""

    flavour: ClassVar[str] = "sglang"
    bootstrap: ClassVar[tuple[str, str, str]] = (
        "bootstrap_host",
        "bootstrap_port",
        "bootstrap_room",
    )
    own_fields: ClassVar[frozenset[str]] = SAMPLING | {"ignore_eos", "rid", *bootstrap}

    def name_token(self, choice: dict[str, Any], token: int) -> None:
        choice["token_ids"] = [token]

    def check(self, body: dict[str, Any], *, is_chat: bool) -> None:
        super().check(body, is_chat=is_chat)
        given = [name in body for name in self.bootstrap]
        if any(given) is not (self.role != "mixed") or (any(given) and not all(given)):
            raise Bad("bootstrap_host, bootstrap_port and bootstrap_room belong to a pair")
        if not all(given):
            return
        host, port, room = (body[name] for name in self.bootstrap)
        if (host, port) != ("127.0.0.1", 8998):
            raise Bad(f"there is no bootstrap server at {host}:{port}", 500)
        if type(room) is not int or not 0 <= room < 2**63:
            raise Bad("bootstrap_room is an integer below 2**63")

    async def before_first(self, call: Call) -> None:
        if self.role != "mixed":
            await self.fabric.room(call.body["bootstrap_room"]).meet(self.role, call.body)

    def tokens(self, body: dict[str, Any]) -> Any:
        if self.role == "prefill":  # it ends with the first token
            yield token_of(body, 0), "length"
            return
        yield from super().tokens(body)

    def left(self, call: Call) -> None:
        if self.role != "mixed":
            self.fabric.room(call.body["bootstrap_room"]).lost.set()


class FastDeployStandIn(PairStandIn):
    """FastDeploy; both servers are told of each other."""

    flavour: ClassVar[str] = "fastdeploy"
    own_fields: ClassVar[frozenset[str]] = SAMPLING | {
        "max_streaming_response_tokens",
        "disaggregate_info",
        "request_id",
    }
    info: ClassVar[dict[str, Any]] = {
        "prefill_ip": "127.0.0.1",
        "decode_ip": "127.0.0.1",
        "prefill_connector_port": 8300,
        "decode_connector_port": 8301,
        "decode_device_ids": ["1"],
        "decode_rdma_ports": ["8401"],
        "transfer_protocol": "ipc",
        "decode_tp_size": 1,
    }

    def name_token(self, choice: dict[str, Any], token: int) -> None:
        choice.get("delta", choice)["completion_token_ids"] = [token]

    def check(self, body: dict[str, Any], *, is_chat: bool) -> None:
        super().check(body, is_chat=is_chat)
        info = body.get("disaggregate_info")
        if (info is not None) is not (self.role != "mixed"):
            raise Bad("disaggregate_info belongs to a pair")
        if info is not None and (info != self.info or not body.get("request_id")):
            raise Bad(f"disaggregate_info must be {self.info} and request_id be given, not {info}")

    async def before_first(self, call: Call) -> None:
        if self.role != "mixed":
            await self.fabric.room(call.body["request_id"]).meet(self.role, call.body)

    def tokens(self, body: dict[str, Any]) -> Any:
        if self.role == "prefill":
            yield token_of(body, 0), "length"
            return
        yield from super().tokens(body)

    def left(self, call: Call) -> None:
        if self.role != "mixed":
            self.fabric.room(call.body["request_id"]).lost.set()


STAND_INS = {
    "plain": StandIn,
    "vllm": VllmStandIn,
    "sglang": SGLangStandIn,
    "fastdeploy": FastDeployStandIn,
}
