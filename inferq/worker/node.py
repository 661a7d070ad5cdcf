"""A node: an engine, the intake that feeds it, and the outbox for what it produces."""

from __future__ import annotations

from inferq.engines import Engine, create_engine
from inferq.results.base import Outbox
from inferq.settings import Settings
from inferq.worker.intake import Intake


class Node:
    """What the tasks of one worker share. ``start`` must come first."""

    intake: Intake

    def __init__(self, settings: Settings, outbox: Outbox, name: str) -> None:
        self.settings = settings
        self.name = name
        self.outbox = outbox
        self.engine: Engine = create_engine(settings)

    async def start(self) -> None:
        """Start the engine, then build the intake on what it can hold.

        Raises:
            EngineStartError: the engine says why it cannot.
        """
        await self.engine.start()
        self.intake = Intake(self.settings, self.engine)

    async def stop(self) -> None:
        """Stop the engine."""
        await self.engine.stop()
