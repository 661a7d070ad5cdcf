"""Kombu's Redis transport for workers, with the loss windows taken out.

Stock Kombu pops a message, then notes that it did; acknowledges over the connection that delivered
it; and hands a message out again when an hour has passed. Here a node takes and records messages in
one step of its own (``worker/taker.py``) and this channel only passes them on to Celery. What stays
stock: the wire format, control commands, events and everything a producer does.
"""

from __future__ import annotations

from typing import Any, Protocol

from kombu.transport import redis
from kombu.transport.virtual import Message

from inferq.transport.gate import RawMessage

#: Messages handed to the consumer before it gets to look at its own business again.
MESSAGES_PER_READ = 64
_EVENT = "CLAIMS"


class Source(Protocol):
    """Where a node's claimed messages come from, and what becomes of them.

    ``take`` and ``fileno`` are for the consumer's thread, the others for any.
    """

    def fileno(self) -> int:
        """Readable when there is something to take."""

    def take(self, limit: int) -> list[tuple[RawMessage, str]]:
        """Claimed messages with the queue they are to be delivered on, at most ``limit``."""

    def owns(self, delivery_tag: str) -> bool:
        """Whether the tag is that of a claim; others belong to Kombu."""

    def settle(self, delivery_tag: str) -> None:
        """The claim has ended. A second time does nothing."""

    def put_back(self, delivery_tag: str) -> None:
        """The message is to be run elsewhere."""

    def refuse(self, delivery_tag: str) -> None:
        """The message cannot be run by anybody."""


class QoS(redis.QoS):  # type: ignore[misc]
    """Passes acknowledgements of claims to their source; nothing hangs on the connection."""

    restore_at_shutdown = False

    def append(self, message: Message, delivery_tag: str) -> None:
        """Keep an unacknowledged message; a claim is recorded in Redis already."""
        if not self.channel.owns(delivery_tag):
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; a second time does nothing."""
        if self.channel.owns(delivery_tag):
            self.channel.source.settle(delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back, or up."""
        if not self.channel.owns(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)
        elif requeue:
            self.channel.source.put_back(delivery_tag)
        else:
            self.channel.source.refuse(delivery_tag)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is handed out again because time has passed: leases decide."""


class Channel(redis.Channel):  # type: ignore[misc]
    """A channel that, once attached to a source, delivers claims and does not pop itself."""

    QoS = QoS
    source: Source | None = None
    #: Queues that the source takes from.
    claimed_queues: frozenset[str] = frozenset()

    def attach(self, source: Source, queues: frozenset[str]) -> None:
        """Take the messages of these queues from the source. For the consumer's thread."""
        self.source, self.claimed_queues = source, queues
        self.handlers[_EVENT] = self._deliver_claims
        cycle = self.connection.cycle
        cycle._fd_to_chan[source.fileno()] = (self, _EVENT)  # noqa: SLF001 - how Kombu's own do it
        cycle.poller.register(source.fileno(), cycle.eventflags)
        self._update_queue_cycle()

    def owns(self, delivery_tag: str) -> bool:
        """Whether a message was delivered by the source."""
        return self.source is not None and self.source.owns(delivery_tag)

    @property
    def active_queues(self) -> list[str]:
        """The queues that Kombu pops from itself."""
        return [queue for queue in super().active_queues if queue not in self.claimed_queues]

    def close(self) -> None:
        """Leave the poller; claims and their acknowledgements live on."""
        if self.source is not None and self.connection is not None:
            self.connection.cycle._fd_to_chan.pop(self.source.fileno(), None)  # noqa: SLF001
        super().close()

    def _deliver_claims(self) -> bool:
        assert self.source is not None
        for message, queue in self.source.take(MESSAGES_PER_READ):
            self.connection._deliver(message, queue)  # noqa: SLF001
        return True


class Transport(redis.Transport):  # type: ignore[misc]
    """Choose it with ``broker_transport = "inferq.transport.redis:Transport"``."""

    Channel = Channel
