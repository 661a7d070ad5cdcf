"""Messages that nobody should write, and that anybody can."""

from __future__ import annotations

import base64
import json
import pickle
import random
import uuid
from typing import Any

TASK = "inferq.prefill"


def body(kwargs: dict[str, Any]) -> str:
    """A task's body as stock Celery writes it in JSON."""
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return base64.b64encode(json.dumps([[], kwargs, embed]).encode()).decode()


def stock_message(
    name: str, kwargs: dict[str, Any] | None = None, **headers: Any
) -> dict[str, Any]:
    """A good message of a stock producer."""
    return {
        "body": body(kwargs if kwargs is not None else {"prompt_token_ids": [0], "max_tokens": 2}),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": TASK, "id": name, "root_id": name},
        "properties": {
            "correlation_id": name,
            "reply_to": "stock",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "faults.prefill"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": name,
        },
    }


class Explosive:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._path, "w")


def hostile_messages(count: int, trap: str, seed: int = 0) -> list[bytes]:
    """So many different ones; ``trap`` is a file that appears if a pickle is loaded."""
    rng = random.Random(seed)
    makers = [_bytes, _json_of_wrong_type, _truncated, _wrong_field, _wrong_header, _forged]
    messages = [rng.choice(makers)(rng) for _ in range(count - 60)]
    messages += [_pickled(trap) for _ in range(50)]
    messages += [b"\x00" * 3_000_000 for _ in range(5)]
    messages += [b"[" * 100_000 for _ in range(5)]
    rng.shuffle(messages)
    return messages


def _raw(message: Any) -> bytes:
    return json.dumps(message).encode()


def _name(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128)))


def _bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 200))


def _json_of_wrong_type(rng: random.Random) -> bytes:
    return _raw(rng.choice([None, 1, -1.5e308, "text", [], [{}], {}, True, {"inferq": 1}]))


def _truncated(rng: random.Random) -> bytes:
    raw = _raw(stock_message(_name(rng)))
    return raw[: rng.randrange(1, len(raw))]


def _wrong(rng: random.Random) -> Any:
    return rng.choice(
        [None, 1, -1, 2**70, 1.5, "", "x" * 1000, [], [1], {}, {"a": {}}, True, "\0é"]
    )


def _wrong_field(rng: random.Random) -> bytes:
    message = stock_message(_name(rng))
    field = rng.choice(["body", "headers", "properties", "content-type", "content-encoding"])
    wrong = _wrong(rng)
    if field == "content-encoding" and wrong in (None, "", "utf-8"):
        wrong = 1
    if field == "properties" and isinstance(wrong, dict):
        wrong = []
    message[field] = wrong
    return _raw(message)


def _wrong_header(rng: random.Random) -> bytes:
    message = stock_message(_name(rng))
    field = rng.choice(["id", "task"])
    message["headers"][field] = rng.choice([None, 1, "", [], {}, True, "x y", "é", "\0"])
    return _raw(message)


def _forged(rng: random.Random) -> bytes:
    """An envelope of ours with anything in it, before a message that is none."""
    numbers = [rng.choice([0, 1, 7, 2**31, 10**15, 10**40]) for _ in range(6)]
    name = rng.choice(["", "x", "%", "%zz", "a" * 5000, "\\u0000"])
    envelope = f'{{"inferq": [{", ".join(map(str, numbers))}, "{name}"], '
    return envelope.encode() + rng.choice([b"", b"}", b'"body": 1}', b"\xff\xfe}"])


def _pickled(trap: str) -> bytes:
    message = stock_message(str(uuid.uuid4()))
    message["content-type"] = "application/x-python-serialize"
    message["content-encoding"] = "binary"
    message["body"] = base64.b64encode(pickle.dumps(Explosive(trap))).decode()
    return _raw(message)
