"""A request as the server wants it."""

from __future__ import annotations

from typing import Any

from inferq.engines.openai.flavours import FLAVOURS
from inferq.errors import InvalidRequest
from inferq.messages import Request
from inferq.settings.openai import Flavour

CHAT = "/chat/completions"
TEXT = "/completions"


def path_of(request: Request) -> str:
    """The end of the address that the request goes to."""
    return TEXT if request.messages is None else CHAT


def body_of(request: Request, model: str, flavour: Flavour) -> dict[str, Any]:
    """The JSON of a streamed request.

    Raises:
        InvalidRequest: the server cannot obey a field.
    """
    traits = FLAVOURS[flavour]
    check(request, flavour)
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": request.max_tokens,
        # Given even where it is our default: a server's own defaults may be the model's.
        "temperature": request.temperature,
        "top_p": request.top_p,
        **prompt_of(request),
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    top_k = request.top_k or traits.all_top_k
    if top_k is not None:
        body["top_k"] = top_k
    if request.min_tokens:
        body["min_tokens"] = request.min_tokens
    if request.stop_token_ids:
        body["stop_token_ids"] = list(request.stop_token_ids)
    if request.ignore_eos:
        body["ignore_eos"] = True
    body |= _own_fields(request, flavour)
    return body


def check(request: Request, flavour: Flavour) -> None:
    """Refuse a request with a field that the server does not know.

    Raises:
        InvalidRequest: names the field.
    """
    for name in sorted(FLAVOURS[flavour].refused):
        if getattr(request, name):
            raise InvalidRequest(name, f"a server of the flavour {flavour} cannot obey it")


def prompt_of(request: Request) -> dict[str, Any]:
    """The prompt, in the words of the endpoint."""
    if request.messages is not None:
        return {"messages": [message.model_dump() for message in request.messages]}
    if request.prompt_token_ids is not None:
        return {"prompt": list(request.prompt_token_ids)}
    return {"prompt": request.prompt}


def _own_fields(request: Request, flavour: Flavour) -> dict[str, Any]:
    if flavour in ("vllm", "sglang"):
        return {"return_token_ids": True}
    if flavour == "fastdeploy":
        return {"return_token_ids": True, "max_streaming_response_tokens": 1}
    if flavour == "llamacpp":
        # Log probabilities are the only part of its stream that names tokens. Its own default
        # of min_p would narrow what the request asks for.
        wanted = {"logprobs": 1} if request.messages is None else {"logprobs": True}
        return {**wanted, "min_p": 0.0}
    return {}
