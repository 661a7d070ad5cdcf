"""Names in Redis, and the envelope: what scripts read of a message without decoding it."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from inferq.cluster.answers import text

#: Kombu's separator between a queue's name and a priority, and its priority steps.
SEPARATOR = "\x06\x16"
STEPS = (0, 3, 6, 9)
ORIGIN_PREFIX = "inferq."

_SAFE = "._:-~"
_ORIGIN = re.compile(r"inferq\.[0-9A-Fa-f]+\.([0-9]{1,3})")
_ENVELOPE = re.compile(rb'\{"inferq": \[((?:\d{1,15}, ){6})"([^"]*)"\], ')


def prefix_of(topic: str) -> str:
    """What the names of a topic's own keys begin with."""
    return f"inferq:{topic}:"


def quoted(request_id: str) -> str:
    """A request's id as it stands in keys and envelopes: without quotes, spaces, line ends."""
    return quote(request_id, safe=_SAFE, errors="surrogatepass")


def unquoted(text: str) -> str:
    """The id that ``quoted`` was given; of what anybody else has written, something close."""
    try:
        return unquote(text, errors="surrogatepass")
    except UnicodeDecodeError:
        return unquote(text, errors="replace")


def step_of(priority: int) -> int:
    """Which of a queue's lists (from 1) holds a priority, as Kombu assigns them."""
    return max(i for i, step in enumerate(STEPS, 1) if step <= max(0, priority))


def list_of(queue: str, step: int) -> str:
    """The name of a queue's list for a step, from 1."""
    return queue if step == 1 else f"{queue}{SEPARATOR}{STEPS[step - 1]}"


def shard_of(request_id: str, shards: int) -> int:
    """Which of an origin's streams carries a request; lib/records.lua computes the same."""
    return sum(request_id.encode("utf-8", "surrogatepass")) % shards


def stream_of(prefix: str, origin: str, request_id: str) -> str | None:
    """The stream of a request at its origin; None for an origin that does not stream."""
    shards = shards_of(origin)
    return f"{prefix}out:{origin}:{shard_of(request_id, shards)}" if shards else None


def shards_of(origin: str) -> int:
    """The number of streams that an origin reads; 0 when it is none of our producers."""
    match = _ORIGIN.fullmatch(origin)
    return int(match[1]) if match else 0


class Envelope(NamedTuple):
    """What stands before a message: sizes in tokens (0: unknown), times in ms of Redis' clock.

    ``number`` is 0 until a script has looked at the message; then twice its place in the order of
    all that was looked at, plus one once it was claimed. ``attempt``: how often it was started.
    """

    number: int = 0
    attempt: int = 0
    prompt_tokens: int = 0
    max_tokens: int = 0
    submitted_ms: int = 0
    deadline_ms: int = 0
    quoted_id: str = ""

    def serialize(self) -> str:
        """The beginning of a message, up to where its stock fields begin."""
        numbers = ", ".join(str(int(part)) for part in self[:6])
        return f'{{"inferq": [{numbers}, "{self.quoted_id}"], '

    @classmethod
    def read(cls, message: bytes) -> Envelope | None:
        """What stands before a message, as scripts read it; None when nothing does."""
        match = _ENVELOPE.match(message)
        if match is None:
            return None
        numbers = (int(part) for part in match[1].split(b",")[:6])
        return cls._make((*numbers, text(match[2])))


def strip_envelope(raw: bytes) -> bytes:
    """A message as its producer's Kombu wrote it."""
    match = _ENVELOPE.match(raw)
    return b"{" + raw[match.end() :] if match else raw


def staged_key(prefix: str, inc: str) -> str:
    """Where Redis puts a message for an idle incarnation that waits in BLMOVE."""
    return f"{prefix}staged:{inc}"


def bell_key(prefix: str, inc: str) -> str:
    """The list on which an incarnation is told that there is something for it."""
    return f"{prefix}bell:{inc}"
