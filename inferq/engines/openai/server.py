"""Is the server there, what does it serve, and how busy is it?"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, NamedTuple

from inferq.engines.openai.failures import Refused
from inferq.engines.openai.flavours import FLAVOURS
from inferq.engines.openai.http import NOT_TAKEN, Unreachable, Upstream
from inferq.engines.openai.metrics import ServerLoad, read_load
from inferq.engines.openai.room import Room
from inferq.errors import EngineError, EngineStartError
from inferq.settings import OpenAISettings

logger = logging.getLogger(__name__)

#: A look at the server takes no longer than this, seconds.
LOOK_S = 5.0
#: Pause between looks while the server comes up, seconds.
COMING_UP_S = 0.25


class Served(NamedTuple):
    """The model that the server serves; 0: it does not say."""

    name: str
    max_model_len: int = 0
    vocab_size: int = 0
    slots: int = 0


class Server:
    """Looks at the server."""

    def __init__(self, settings: OpenAISettings, upstream: Upstream) -> None:
        self._settings = settings
        self._traits = FLAVOURS[settings.flavour]
        self._upstream = upstream
        self._now = asyncio.Event()
        self._metrics_url = settings.metrics_url or (
            f"{upstream.root}/metrics" if self._traits.gauges else ""
        )

    async def wait(self) -> Served:
        """Wait until it is there, and find the model.

        Raises:
            EngineStartError: it is not there in time, or serves something else.
        """
        last: EngineError | None = None
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                while True:
                    try:
                        return await self._look_for_model()
                    except (Unreachable, Refused) as exc:
                        if isinstance(exc, Refused) and exc.status not in NOT_TAKEN:
                            raise EngineStartError(f"{self._upstream.base}/models: {exc}") from None
                        last = exc
                    await asyncio.sleep(COMING_UP_S)
        except TimeoutError:
            raise EngineStartError(
                f"openai.base_url={self._upstream.base!r}: no server within "
                f"{self._settings.start_timeout_s:g} s: {last or 'it does not answer'}"
            ) from None
        except EngineStartError:
            raise
        except EngineError as exc:
            raise EngineStartError(f"openai.base_url={self._upstream.base!r}: {exc}") from None

    async def load(self) -> ServerLoad | None:
        """Look once; None when it is there but measures nothing.

        Raises:
            EngineError: it is not there, or not well.
        """
        if self._metrics_url and self._traits.gauges is not None:
            try:
                page = await self._upstream.get(self._metrics_url, timeout_s=LOOK_S)
                return read_load(page.decode(errors="replace"), self._traits.gauges)
            except Refused as exc:
                if exc.status in NOT_TAKEN or exc.status == 500:
                    raise
                logger.warning(
                    "%s: %s; load is counted from own requests only", self._metrics_url, exc
                )
                self._metrics_url = ""
        await self._upstream.get(self._health_url(), timeout_s=LOOK_S)
        return None

    async def watch(self, room: Room) -> None:
        """Look every ``poll_s``, and when a request has not got through, for ever."""
        while True:
            try:
                async with asyncio.timeout(self._settings.poll_s):
                    await self._now.wait()
            except TimeoutError:
                pass
            self._now.clear()
            await self.look(room)

    def look_soon(self) -> None:
        """A request could not reach the server."""
        self._now.set()

    async def look(self, room: Room) -> None:
        """Look once, and tell the room."""
        contained, was_up = room.mark(), room.is_up
        try:
            load = await self.load()
        except EngineError as exc:
            room.lost()
            if was_up:
                logger.error("nothing is taken until the server is back: %s", exc)
            return
        room.measured(load, contained)
        if not was_up:
            logger.warning("the server at %s is back", self._upstream.base)

    def _health_url(self) -> str:
        if self._traits.health:
            return self._upstream.root + self._traits.health
        return f"{self._upstream.base}/models"

    async def _look_for_model(self) -> Served:
        url = f"{self._upstream.base}/models"
        models = _models(await self._document(url))
        wanted = self._settings.model
        if wanted is None and len(models) != 1:
            raise EngineStartError(
                f"openai.model: name one of those that {self._upstream.base} serves: "
                f"{_names(models)}"
            )
        for name, model in models.items():
            if wanted in (None, name) or wanted in (model.get("aliases") or ()):
                return await self._served(wanted or name, model)
        raise EngineStartError(
            f"openai.model={wanted!r}: {self._upstream.base} serves {_names(models)}"
        )

    async def _served(self, name: str, model: dict[str, Any]) -> Served:
        if self._settings.flavour != "llamacpp":
            return Served(name, _count(model.get("max_model_len")))
        meta = model.get("meta")
        meta = meta if isinstance(meta, dict) else {}
        props = await self._document(f"{self._upstream.root}/props")
        slots = props.get("total_slots") if isinstance(props, dict) else None
        return Served(name, _count(meta.get("n_ctx")), _count(meta.get("n_vocab")), _count(slots))

    async def _document(self, url: str) -> Any:
        try:
            return json.loads(await self._upstream.get(url, timeout_s=LOOK_S))
        except (ValueError, RecursionError):
            raise EngineStartError(f"{url}: the server sent no JSON") from None


def _models(document: Any) -> dict[str, dict[str, Any]]:
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise EngineStartError("the server's list of models is none; is it OpenAI-compatible?")
    return {
        entry["id"]: entry
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    }


def _names(models: dict[str, dict[str, Any]]) -> str:
    return (", ".join(sorted(models)) or "nothing")[:300]


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
