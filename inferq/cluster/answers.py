"""Answers of Redis as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pairs(flat: Sequence[Any]) -> dict[str, str]:
    """What a command returned as name, value, name, value."""
    texts = [text(part) for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def text(raw: Any) -> str:
    """Bytes of Redis as text, without loss."""
    return raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else str(raw)
