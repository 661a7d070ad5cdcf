"""What callers must see, whatever was killed: each token once, in order, and one end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from inferq import Client, Output
from inferq.client import Handle
from tests.faults.journal import Shape
from tests.support import LONG_S


def requests(
    prefix: str, count: int, *, tokens: int = 20, pace_ms: int = 10, **shape: int
) -> list[Any]:
    """The fields of requests to the counting engine; ``shape``: see there."""
    prompt = list(Shape(pace_ms, **shape)) if shape else [pace_ms]
    return [
        {"request_id": f"{prefix}-{n}", "prompt_token_ids": prompt, "max_tokens": tokens}
        for n in range(count)
    ]


def submit(client: Client, prefix: str, count: int, **shape: int) -> list[Handle]:
    """Submit such requests."""
    return client.submit_many(requests(prefix, count, **shape))


def check_outputs(outputs: Iterable[Output], tokens: int) -> None:
    """One whole answer of the counting engine: no gap, no repetition, one end."""
    index, ended = 0, False
    for output in outputs:
        assert not ended, f"{output.request_id}: an output after the end"
        assert not output.restarted, f"{output.request_id}: the same answer is no restart"
        assert output.index == index, f"{output.request_id}: {output.index} follows {index}"
        assert list(output.token_ids) == list(range(index, index + len(output.token_ids)))
        index += len(output.token_ids)
        ended = output.finished
    assert ended, "no end"
    assert index == tokens


def check_answers(handles: Sequence[Handle], tokens: int = 20) -> None:
    """Every request ends with its whole answer."""
    for handle in handles:
        handle.result(LONG_S)
        check_outputs(handle.stream(), tokens)
