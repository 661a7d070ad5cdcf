"""How long a prompt is, in tokens that only the server knows."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx

from inferq.engines.openai.body import prompt_of
from inferq.engines.openai.flavours import FLAVOURS
from inferq.engines.openai.keys import headers_of, read_key, tls_of
from inferq.messages import Request
from inferq.settings import OpenAISettings

#: Tokens that a chat template puts around a message, about.
TOKENS_AROUND_MESSAGE = 5
#: Weight of what was counted before, each time that the server says a count.
MEMORY = 0.99
#: Weight of the setting, in tokens.
PRIOR_TOKENS = 200.0
#: Longest wait for a count, and the pause after one that did not come, seconds.
ASK_S = 0.25
PAUSE_S = 30.0


class Counter:
    """Estimates lengths from bytes, and corrects itself by the counts in the server's answers.

    With ``exact_counts`` it asks the server first, which blocks the caller for up to ``ASK_S``.
    For any thread.
    """

    def __init__(self, settings: OpenAISettings, root: str, model: str) -> None:
        self._tokens = PRIOR_TOKENS
        self._bytes = PRIOR_TOKENS * settings.bytes_per_token
        self._lock = threading.Lock()
        self._model = model
        self._is_llama = settings.flavour == "llamacpp"
        path = FLAVOURS[settings.flavour].tokenize if settings.exact_counts else ""
        self._url = root + path if path else ""
        self._not_before = 0.0
        self._client: httpx.Client | None = None
        if self._url:
            self._client = httpx.Client(
                headers=headers_of(read_key(settings)),
                verify=tls_of(settings),
                trust_env=False,
                timeout=ASK_S,
            )

    def close(self) -> None:
        """Close the connection for counts."""
        if self._client is not None:
            self._client.close()

    def count(self, request: Request) -> int:
        """Length of the prompt, at least 1. Exact for token ids, and where the server is asked."""
        if request.prompt_token_ids is None:
            asked = self._ask(request)
            if asked:
                return asked
        return self.estimate(request)

    def estimate(self, request: Request) -> int:
        """The same without asking anybody: for the event loop."""
        if request.prompt_token_ids is not None:
            return len(request.prompt_token_ids)
        with self._lock:
            per_token = self._bytes / self._tokens
        return max(1, round(_bytes(request) / per_token) + _around(request))

    def learn(self, request: Request, prompt_tokens: int) -> None:
        """The server has counted the prompt."""
        if request.prompt_token_ids is not None or not prompt_tokens:
            return
        tokens = max(1, prompt_tokens - _around(request))
        with self._lock:
            self._bytes = MEMORY * self._bytes + _bytes(request)
            self._tokens = MEMORY * self._tokens + tokens

    def _ask(self, request: Request) -> int:
        if self._client is None or time.monotonic() < self._not_before:
            return 0
        if self._is_llama and request.messages is not None:
            return 0  # its template is another call away
        try:
            answer = self._client.post(self._url, json=self._question(request))
            answer.raise_for_status()
            document = answer.json()
            count = document.get("count", len(document.get("tokens", ())))
            if type(count) is int:
                return max(0, count)
        except (httpx.HTTPError, ValueError, AttributeError, TypeError):
            pass
        self._not_before = time.monotonic() + PAUSE_S
        return 0

    def _question(self, request: Request) -> dict[str, Any]:
        if self._is_llama:
            return {"content": request.prompt, "add_special": True}
        return {"model": self._model, **prompt_of(request)}


def _bytes(request: Request) -> int:
    if request.messages is None:
        return len((request.prompt or "").encode())
    return sum(len(message.content.encode()) for message in request.messages)


def _around(request: Request) -> int:
    return TOKENS_AROUND_MESSAGE * len(request.messages or ())
