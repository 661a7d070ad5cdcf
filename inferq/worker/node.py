"""A node: an engine, the intake that feeds it, and the ways out of what it produces."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from inferq.engines import Engine, create_engine
from inferq.errors import RequestCancelled
from inferq.messages import Handoff
from inferq.results.base import Outbox
from inferq.settings import Role, Settings
from inferq.transfer import Transfer, create_transfer
from inferq.worker.intake import Intake
from inferq.worker.stats import Stats

if TYPE_CHECKING:
    from inferq.worker.onward import Onward

logger = logging.getLogger(__name__)


class Node:
    """What the tasks of one worker share. ``start`` must come first."""

    intake: Intake

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        name: str,
        onward: Onward | None = None,
        stats: Stats | None = None,
    ) -> None:
        self.settings = settings
        self.name = name
        self.outbox = outbox
        #: What it does now; the settings say what it began with.
        self.role: Role = settings.role
        #: The way to nodes of the other phase; None where there are none.
        self.onward = onward
        #: Requests whose other half was lost with its node.
        self.deserted: set[str] = set()
        #: Requests that were cancelled before their task could be: it has not begun yet.
        self.cancelled: set[str] = set()
        self.stats = stats or Stats()
        self.engine: Engine = create_engine(settings)
        self.transfer: Transfer | None = create_transfer(settings) if onward is not None else None

    async def start(self) -> None:
        """Start the engine, then build the intake on what it can hold.

        Raises:
            EngineStartError: the engine says why it cannot.
        """
        if self.transfer is not None:
            await self.transfer.start()
            self.engine.use_transfer(self.transfer)
        await self.engine.start()
        self.intake = Intake(self.settings, self.engine, self._most_claims)
        self.set_role(self.role)

    async def stop(self) -> None:
        """Stop the engine."""
        await self.engine.stop()
        if self.transfer is not None:
            await self.transfer.stop()

    def set_role(self, role: Role) -> None:
        """Serve other phases from now on; what runs is finished."""
        self.role = role
        self.intake.hands_off = role == "prefill"

    async def release_kv(self, handoff: Handoff) -> None:
        """Nobody here will fetch the KV cache of a handoff."""
        if self.transfer is not None and handoff.family == "sequential":
            await self.transfer.release(handoff.kv)

    def check_wanted(self, request_id: str) -> None:
        """A task begins.

        Raises:
            RequestCancelled: its request was cancelled on its way here.
        """
        if request_id in self.cancelled:
            self.cancelled.discard(request_id)
            raise RequestCancelled(request_id, "it was cancelled")

    def was_deserted(self, request_id: str) -> bool:
        """Whether the other half of a request is lost; it is said once."""
        if request_id not in self.deserted:
            return False
        self.deserted.discard(request_id)
        return True

    def desert(self, request_id: str) -> None:
        """The other half of a request is lost: end what runs here. On the event loop."""
        self.deserted.add(request_id)
        self.engine.abort(request_id)

    def _most_claims(self) -> int:
        """For how many requests there is room to keep their KV caches, as far as that matters."""
        if self.role != "prefill" or self.transfer is None:
            return sys.maxsize
        if self.transfer.is_full:
            return 0
        return self.settings.transfer.max_caches - len(self.transfer.kept())
