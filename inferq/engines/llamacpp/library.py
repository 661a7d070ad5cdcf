"""llama.cpp itself: loaded from the ``xllamacpp`` package, checked once per process."""

from __future__ import annotations

import ctypes
import importlib
import threading
import weakref
from typing import Any

from inferq.engines.llamacpp.functions import declare
from inferq.engines.llamacpp.logs import LOG_CALLBACK, LogTail
from inferq.engines.llamacpp.structs import wrong_defaults
from inferq.errors import EngineStartError

_INSTALL = 'pip install "inferq[llamacpp]"'


class Library:
    """The loaded shared object: ``call`` holds its functions, ``log`` its last complaints.

    Calls release the interpreter lock while they run.
    """

    def __init__(self, path: str) -> None:
        """Load the shared object at ``path`` and check that its structs have known layouts.

        Raises ``EngineStartError`` when it cannot be loaded, lacks a function or was built
        from a llama.cpp with other struct layouts.
        """
        try:
            handle = ctypes.CDLL(path)
            declare(handle)
        except (OSError, AttributeError) as error:
            raise EngineStartError(
                f"{path} is not the llama.cpp library that inferq needs: {error}; "
                f"reinstall it: {_INSTALL}"
            ) from error
        self.call: Any = handle
        wrong = wrong_defaults(
            handle.llama_model_default_params(), handle.llama_context_default_params()
        )
        if wrong:
            raise EngineStartError(
                f"{path} holds a build of llama.cpp that inferq does not know: "
                f"{', '.join(wrong[:3])}; install the supported one: {_INSTALL}"
            )
        self.log = LogTail()
        handle.llama_log_set(self.log.callback, None)
        # The callback runs Python, so llama.cpp must drop it before the interpreter ends.
        # Finalizers run last-made first: the models and contexts made later go before it.
        weakref.finalize(self, handle.llama_log_set, LOG_CALLBACK(), None)
        handle.llama_backend_init()


_lock = threading.Lock()
_loaded: Library | None = None


def library() -> Library:
    """Return llama.cpp, loading it on the first call.

    Load it in the process that computes: its thread pool does not survive a fork.
    Raises ``EngineStartError`` when ``xllamacpp`` is not installed or not usable.
    """
    global _loaded  # noqa: PLW0603 - one shared object per process
    with _lock:
        if _loaded is None:
            _loaded = Library(_shared_object())
        return _loaded


def _shared_object() -> str:
    """Return the path of the shared object inside ``xllamacpp``."""
    try:
        module = importlib.import_module("xllamacpp.xllamacpp")
    except ImportError as error:
        raise EngineStartError(
            f"the llamacpp engine needs the package xllamacpp, which cannot be imported "
            f"({error}): {_INSTALL}"
        ) from error
    path = getattr(module, "__file__", None)
    if path is None:
        raise EngineStartError(f"the package xllamacpp has no shared object: {_INSTALL}")
    return str(path)
