"""The bounds that settings put on requests, where they enter and again where they arrive."""

from __future__ import annotations

from inferq.errors import RequestTooLarge
from inferq.messages.request import Request
from inferq.settings import LimitSettings


def check_limits(request: Request, limits: LimitSettings) -> None:
    """Refuse what is larger than the settings allow.

    Raises:
        RequestTooLarge: names the field, its size and the setting.
    """
    _check("max_tokens", request.max_tokens, "tokens", limits.max_output_tokens, "output_tokens")
    if request.prompt_token_ids is not None:
        count = len(request.prompt_token_ids)
        _check("prompt_token_ids", count, "tokens", limits.max_prompt_tokens, "prompt_tokens")
        return
    turns = request.messages or ()
    length = len(request.prompt or "") + sum(len(turn.content) for turn in turns)
    field = "messages" if turns else "prompt"
    _check(field, length, "characters", limits.max_prompt_characters, "prompt_characters")


def _check(field: str, size: int, unit: str, most: int | None, setting: str) -> None:
    if most is not None and size > most:
        raise RequestTooLarge(field, f"{size} {unit}; limits.max_{setting} is {most}")
