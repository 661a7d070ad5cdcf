"""Files that settings name: secrets, and certificates."""

from __future__ import annotations

from pathlib import Path

MAX_SECRET_BYTES = 4096


def check_readable(path: str) -> str:
    """The path, if the file can be read. Raises ValueError."""
    try:
        with Path(path).open("rb"):
            return path
    except OSError as exc:
        raise ValueError(f"the file cannot be read: {exc.strerror}") from None


def read_secret(path: str) -> str:
    """The secret in a file, without the line end after it.

    Raises:
        ValueError: what is wrong with the file; nothing that is in it.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
    except OSError as exc:
        raise ValueError(f"the file cannot be read: {exc.strerror}") from None
    if len(raw) > MAX_SECRET_BYTES:
        raise ValueError(f"a secret has at most {MAX_SECRET_BYTES} bytes")
    try:
        secret = raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("a secret is text in UTF-8") from None
    if not secret or any(char < " " for char in secret):
        raise ValueError("a secret is one line of text")
    return secret
