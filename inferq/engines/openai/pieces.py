"""The events of an answer as chunks of tokens."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from inferq.engines.base import Chunk
from inferq.engines.openai.failures import message_of
from inferq.engines.openai.sse import BadStream
from inferq.errors import EngineError
from inferq.messages import FinishReason
from inferq.messages.fields import MAX_TOKEN_ID

#: Stands for the token of a piece of text where the server does not name tokens.
PLACEHOLDER = 0
_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "tool_calls": FinishReason.STOP,
    "function_call": FinishReason.STOP,
    "content_filter": FinishReason.STOP,
    "recover_stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}


class Piece(NamedTuple):
    """One event: what it adds to the answer, and what the server says about the whole."""

    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0


class ServerFailed(EngineError):
    """Raised when the server says in its answer that it could not compute it."""


class Pieces:
    """Builds chunks; a chunk that is not the last one has tokens.

    Where the server names tokens, text without any is held for the next chunk that has some.
    Where the first text comes without a name, each piece of text counts as one token.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._held = ""
        self._named = bool(where)
        self._known = False

    def take(self, piece: Piece) -> Chunk | None:
        """The chunk of a piece; None while there is nothing to show."""
        ids, text = piece.token_ids, self._held + piece.text
        self._held = ""
        if not self._known and (ids or text):
            self._known, self._named = True, bool(ids)
        if not ids and text and not self._named:
            ids = (PLACEHOLDER,)
        if piece.finish_reason is None and not ids:
            self._held = text
            return None
        return Chunk(ids, text, piece.finish_reason)

    def read(self, data: str) -> Piece:
        """One event's JSON.

        Raises:
            BadStream: it is not what the protocol says.
            ServerFailed: it says that the server failed.
        """
        return read_answer(data, self._where)


def read_answer(data: str | bytes, where: str) -> Piece:
    """An event or a whole answer, which differ only in where the text is.

    Raises:
        BadStream, ServerFailed: see ``Pieces.read``.
    """
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        raise BadStream(f"the server sent no JSON: {data[:60]!r}") from None
    if not isinstance(event, dict):
        raise BadStream("the server sent JSON that is no object")
    if event.get("error"):
        raise ServerFailed(f"the server failed: {message_of(event)}")
    prompt_tokens = _prompt_tokens(event.get("usage"))
    choices = event.get("choices")
    if not isinstance(choices, list) or len(choices) > 1:
        raise BadStream("the server sent no choices, or more than the one asked for")
    if not choices:
        return Piece(prompt_tokens=prompt_tokens)
    choice = choices[0]
    if not isinstance(choice, dict):
        raise BadStream("the server sent a choice that is no object")
    return Piece(_ids(choice, where), _text(choice), _reason(choice), prompt_tokens)


def _inner(choice: dict[str, Any]) -> dict[str, Any]:
    for name in ("delta", "message"):
        if isinstance(choice.get(name), dict):
            inner: dict[str, Any] = choice[name]
            return inner
    return {}


def _text(choice: dict[str, Any]) -> str:
    text = choice.get("text")
    if text is None:
        text = _inner(choice).get("content")
    if text is not None and not isinstance(text, str):
        raise BadStream("the server sent text that is no string")
    return text or ""


def _ids(choice: dict[str, Any], where: str) -> tuple[int, ...]:
    if not where:
        return ()
    if where == "logprobs":
        return _ids_of_logprobs(choice.get("logprobs"))
    found = choice.get(where)
    if found is None:
        found = _inner(choice).get(where)
    return _checked(found if found is not None else [])


def _ids_of_logprobs(logprobs: Any) -> tuple[int, ...]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return ()
    return _checked([entry.get("id") if isinstance(entry, dict) else None for entry in content])


def _checked(ids: Any) -> tuple[int, ...]:
    if not isinstance(ids, list):
        raise BadStream("the server sent token ids that are no array")
    if any(type(token) is not int or not 0 <= token <= MAX_TOKEN_ID for token in ids):
        raise BadStream("the server sent token ids that are none")
    return tuple(ids)


def _reason(choice: dict[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    if reason is None:
        return None
    if reason not in _REASONS:
        raise ServerFailed(f"the server ended the answer with {str(reason)[:60]!r}")
    return _REASONS[reason].value


def _prompt_tokens(usage: Any) -> int:
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int and count > 0 else 0
