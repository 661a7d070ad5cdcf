"""Server-sent events, read strictly and bounded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from inferq.errors import EngineError

#: Longest line; an event of one token has some hundred bytes.
MAX_LINE_BYTES = 1_048_576
#: Fields that say nothing about the answer.
_IGNORED = (b"event", b"id", b"retry")


class BadStream(EngineError):
    """Raised when the server's answer is not what the protocol says."""


async def events(chunks: AsyncIterator[bytes], *, most_bytes: int) -> AsyncGenerator[str, None]:
    """The data of each event.

    Raises:
        BadStream: a line or the whole is too long, a line is no field, or no UTF-8.
    """
    data: list[bytes] = []
    async for line in _lines(chunks, most_bytes):
        if not line:
            if data:
                yield _text(b"\n".join(data))
                data.clear()
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name and name not in _IGNORED:  # without a name it is a comment: a sign of life
            raise BadStream("the server's stream has a line that is no event")


async def _lines(chunks: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[bytes]:
    held, total = b"", 0
    async for chunk in chunks:
        total += len(chunk)
        if total > most_bytes:
            raise BadStream(f"the server's answer is longer than {most_bytes} bytes")
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
        if len(held) > MAX_LINE_BYTES:
            raise BadStream(f"the server sent a line of more than {MAX_LINE_BYTES} bytes")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadStream("the server's stream is not UTF-8") from None
