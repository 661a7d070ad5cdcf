"""Between a transport and the node that consumes from it: may this message be taken now?"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Protocol

#: A message as Kombu's virtual transports hold it: body, headers, properties.
RawMessage = dict[str, Any]


class Verdict(Enum):
    """What to do with a waiting message."""

    TAKE = auto()
    #: Leave it in its place and look at the next one.
    PASS = auto()
    #: Leave it and all behind it.
    STOP = auto()


class Cycle(Protocol):
    """One look at the queues, with the room there was when it began."""

    def judge(self, message: RawMessage) -> Verdict:
        """Decide on one message. One that is to be taken counts as taken from here on."""


class Gate(Protocol):
    """Decides what a consuming channel takes. Called on the consumer's thread."""

    def open(self) -> Cycle | None:
        """Begin a look at the queues; None when nothing can be taken at all."""

    def released(self, delivery_tag: str) -> None:
        """A taken message was acknowledged, rejected or put back. Any thread may call it."""
