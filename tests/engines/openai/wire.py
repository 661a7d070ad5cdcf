"""What a stand-in says, and how it goes over the wire."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

VOCABULARY = 50_000


def token_of(body: dict[str, Any], at: int) -> int:
    """What stands at a position of the answer."""
    chance = body.get("seed") if body["temperature"] else None
    known = json.dumps([body.get("prompt"), body.get("messages"), chance, at])
    return int.from_bytes(hashlib.blake2b(known.encode(), digest_size=4).digest()) % VOCABULARY


def word(token: int) -> str:
    """The text of a token."""
    return f" w{token}"


def prompt_length(body: dict[str, Any]) -> int:
    """Tokens of the prompt: a text has one for each two bytes."""
    if isinstance(body.get("prompt"), list):
        return len(body["prompt"])
    text = body.get("prompt") or "".join(m["content"] for m in body.get("messages", ()))
    return max(1, len(text.encode()) // 2)


def event(
    is_chat: bool, text: str, reason: str | None, more: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One event of either endpoint."""
    said = {"delta": {"content": text, **(more or {})}} if is_chat else {"text": text}
    return {"object": "chunk", "choices": [{"index": 0, "finish_reason": reason, **said}]}


async def send(writer: asyncio.StreamWriter, chunk: dict[str, Any] | str) -> None:
    """One event, as a chunk of the body."""
    data = chunk if isinstance(chunk, str) else json.dumps(chunk)
    line = f"data: {data}\n\n".encode()
    writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
    await writer.drain()


async def reply(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    """A whole answer."""
    body = text.encode()
    writer.write(
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()


def sse(*data: str, head: str = "text/event-stream") -> bytes:
    """A raw answer that ends with the connection."""
    lines = "".join(f"data: {entry}\n\n" for entry in data)
    return f"HTTP/1.1 200 OK\r\ncontent-type: {head}\r\n\r\n{lines}".encode()
