"""The engine that is somebody else's server: vLLM, SGLang, FastDeploy, llama-server.

- ``flavours``: which server takes which fields, and how it names what it measures
- ``body``: a request as the server wants it
- ``sse``, ``pieces``: the stream of its answer, as bytes and as tokens
- ``http``, ``keys``, ``failures``: connections, secrets, and what went wrong in our words
- ``metrics``, ``room``: what the server measures, and what is free
- ``pairs``: how a prefill server and a decode server meet
- ``server``, ``counting``: is it there, what does it serve, how long is a text
- ``engine``, ``calls``, ``channel``: the engine, what a request asks of the server, its answer
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from inferq.errors import SettingsError

if TYPE_CHECKING:
    from inferq.engines.base import Engine
    from inferq.settings import Settings


def create(settings: Settings) -> Engine:
    """The engine that ``settings.openai`` describes.

    Raises:
        SettingsError: httpx is not installed, or the role needs what the flavour does not have.
    """
    try:
        import_module("httpx")
    except ImportError:
        raise SettingsError(
            "engine='openai': httpx is not installed; pip install \"inferq[openai]\"", ["engine"]
        ) from None
    engine: Engine = import_module("inferq.engines.openai.engine").OpenAIEngine(settings)
    return engine
