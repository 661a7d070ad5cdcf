"""Dead letters: what could not be run, why, and what may be done about it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from inferq.cluster.answers import pairs, text
from inferq.cluster.keys import Envelope, unquoted
from inferq.cluster.topic import Topic

#: Letters that are read at once, at most.
MOST_LETTERS = 1_000
#: Of each message, so much is looked at in a list, bytes.
_BEGINNING = 1_024
#: A preview is cut at this length, characters.
MAX_PREVIEW = 4_096

_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
#: What our own producers show of a request. Others put the prompt itself there.
_OWN_WORDS = re.compile(r"\{prompt: \d+ (tokens|characters|messages), max_tokens: \d+\}")

#: Why a letter cannot be requeued.
_REFUSALS: Mapping[str, str] = {
    "unknown": "there is no such letter (any more)",
    "cut": "only the beginning of the message was kept",
    "malformed": "it is no JSON object: no node can read it",
    "live": "a live request has its id",
    "elsewhere": "its queue is none of this topic's",
    "gone": "its producer is gone: nobody would read the answer",
    "full": "its queue is full (cluster.max_waiting)",
}
REQUEUED = "requeued"


class Letter(NamedTuple):
    """A dead letter.

    ``at``: since when, UNIX seconds. ``queue``: the list it was in. ``reason``: a word, ``detail``
    a sentence. ``node``: which one gave it up. ``bytes``: of the message, of which all was kept if
    ``whole``. ``request_id``: empty when it cannot be told. ``text``: what the message is, without
    the words of its prompt.
    """

    id: str
    at: float
    queue: str
    reason: str
    detail: str
    attempts: int
    node: str
    bytes: int
    whole: bool
    request_id: str
    text: str


#: A method below is called as the type is.
_Found = list[Letter]


class Letters:
    """A topic's dead letters. For one thread. Every method raises one of link.AWAY."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._link = topic.link
        self._key = f"{topic.prefix}dead"

    def count(self) -> int:
        """How many there are."""
        return int(self._link.call("XLEN", self._key))

    def list(self, count: int = 50, before: str = "") -> _Found:
        """The newest, or the newest before the letter ``before``; at most MOST_LETTERS.

        Of the text there are only sizes; ``show`` tells more. There is nothing before what is no
        letter's id.
        """
        if before and not _ID.fullmatch(before):
            return []
        count = max(1, min(count, MOST_LETTERS))
        arguments = {"before": before, "count": count, "most_bytes": _BEGINNING}
        rows = self._link.run("letters", {"prefix": self._topic.prefix, **arguments})[1]
        return [_listed(*row) for row in rows]

    def show(self, letter_id: str, *, raw: bool = False) -> Letter | None:
        """One letter. ``raw``: with the beginning of the message as it is, prompt and all."""
        if not _ID.fullmatch(letter_id):
            return None
        entries = self._link.call("XRANGE", self._key, letter_id, letter_id)
        if not entries:
            return None
        name, flat = entries[0]
        message = dict(zip(flat[::2], flat[1::2], strict=True)).get(b"raw", b"")
        letter = _letter(name, flat, len(message), Envelope.read(message), _task_id(message))
        preview = text(message) if raw else _description(message)
        return letter._replace(text=preview[:MAX_PREVIEW])

    def requeue(self, letter_id: str) -> str:
        """Have it run once more: ``requeued``, or a sentence that says why not.

        It waits at the end of its phase's shared queue, as if it was submitted now.
        """
        verdict = self._topic.requeue(letter_id) if _ID.fullmatch(letter_id) else "unknown"
        return _REFUSALS.get(verdict, verdict)

    def drop(self, letter_id: str) -> bool:
        """Forget it; False when there is no such letter."""
        return bool(_ID.fullmatch(letter_id)) and self._link.call("XDEL", self._key, letter_id) == 1


def _listed(name: bytes, flat: list[bytes], begin: bytes, length: int, task_id: bytes) -> Letter:
    envelope = Envelope.read(begin)
    return _letter(name, flat, length, envelope, text(task_id))


def _letter(
    name: bytes, flat: list[bytes], length: int, envelope: Envelope | None, task_id: str
) -> Letter:
    fields = pairs(flat)
    size = _int(fields.get("bytes"))
    return Letter(
        id=text(name),
        at=_int(fields.get("at_ms")) / 1000,
        queue=fields.get("queue", ""),
        reason=fields.get("reason", ""),
        detail=fields.get("detail", ""),
        attempts=_int(fields.get("attempts")),
        node=fields.get("node", ""),
        bytes=size,
        whole=size == length,
        request_id=unquoted(envelope.quoted_id) if envelope and envelope.quoted_id else task_id,
        text=_sizes(envelope),
    )


def _sizes(envelope: Envelope | None) -> str:
    if envelope is None or not envelope.prompt_tokens:
        return ""
    return f"prompt: {envelope.prompt_tokens} tokens, max_tokens: {envelope.max_tokens}"


def _task_id(message: bytes) -> str:
    match = re.search(rb'"correlation_id": "([^"\\]*)"', message)
    return text(match[1]) if match else ""


def _description(message: bytes) -> str:
    """What can be said of a message without its prompt."""
    try:
        said: Any = json.loads(message)
    except (ValueError, RecursionError):
        return f"no JSON, or cut: {len(message)} bytes"
    if not isinstance(said, Mapping):
        return "JSON, but no object"
    headers, properties = (_mapping(said.get(name)) for name in ("headers", "properties"))
    body = said.get("body")
    words = {
        "task": headers.get("task"),
        "id": headers.get("id"),
        "producer": headers.get("origin"),
        "reply_to": properties.get("reply_to"),
        "priority": properties.get("priority"),
        "content_type": said.get("content-type"),
        "body_bytes": len(body) if isinstance(body, str) else None,
    }
    shown = headers.get("kwargsrepr")
    if isinstance(shown, str) and _OWN_WORDS.fullmatch(shown):
        words["request"] = shown
    return json.dumps({name: _short(value) for name, value in words.items() if value is not None})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _short(value: Any) -> str | int:
    return value if type(value) is int else str(value)[:200]


def _int(value: str | None) -> int:
    return int(value) if value is not None and value.isdecimal() and len(value) < 19 else 0
