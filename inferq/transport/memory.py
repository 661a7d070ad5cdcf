"""Kombu transport over a broker in this process.

Unlike Kombu's ``memory://`` it waits on a condition instead of sleeping, keeps order and the
``redelivered`` flag through put-backs, knows priorities, and asks a gate before it takes.
URL: ``inferq-memory://NAME``; the same name is the same broker.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import base, virtual

from inferq.transport.broker import Broker
from inferq.transport.gate import Cycle, Gate, RawMessage

Deliver = Callable[[RawMessage, str], None]

#: Messages handed to the consumer before it gets to look at its own business again.
MESSAGES_PER_DRAIN = 64

_delivery_tags = itertools.count(1)


class QoS(virtual.QoS):  # type: ignore[misc]
    """Keeps unacknowledged messages, and tells broker and gate when one is settled."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; a second time does nothing."""
        super().ack(delivery_tag)
        self.channel.settled(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop the message, or put it back into its place."""
        if not requeue:
            self.ack(delivery_tag)
            return
        # Putting it back comes last: from then on it may be taken again, under the same tag.
        super().ack(delivery_tag)
        self.channel.put_back(delivery_tag)


class Channel(virtual.Channel):  # type: ignore[misc]
    """A channel to the broker of its connection."""

    QoS = QoS
    supports_fanout = True
    do_restore = True
    #: Bodies stay bytes: nothing here needs them to be text.
    body_encoding = None
    #: Set by a worker's intake; None takes everything.
    gate: Gate | None = None
    #: The queues that the gate watches; control and events pass freely.
    gated_queues: frozenset[str] = frozenset()
    #: Judges what is fetched one by one; None takes everything.
    cycle: Cycle | None = None
    #: Called when nothing came: takes messages from other queues. Returns when to call it again
    #: although nothing has changed, seconds; 0: now, it has taken some.
    elsewhere: Callable[[], float] | None = None
    #: Queues consumed without acknowledgement.
    unrecorded_queues: frozenset[str] = frozenset()

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        #: Kept beyond the connection: a task may settle its message after that is closed.
        self.broker: Broker = connection.broker

    def settled(self, delivery_tag: str) -> None:
        """A message was acknowledged, rejected or put back."""
        if self.connection is not None:
            self.broker.settle(delivery_tag)
        if self.gate is not None:
            self.gate.released(delivery_tag)

    def put_back(self, delivery_tag: str) -> None:
        """A message returns to its place in its queue."""
        if self.gate is not None:
            self.gate.released(delivery_tag)
        self.broker.put_back(delivery_tag)

    def deliver_ready(self, deliver: Deliver, limit: int) -> int:
        """Hand over waiting messages, at most ``limit``; returns how many."""
        count = 0
        look = self._open_gate()
        for queue in list(self._active_queues):
            is_gated = self.gate is not None and queue in self.gated_queues
            cycle = look if is_gated else None
            if is_gated and cycle is None:
                continue  # the gate is shut
            while count < limit and self.qos.can_consume():
                record = queue not in self.unrecorded_queues
                message = self.broker.take(queue, cycle, record=record)
                if message is None:
                    break
                deliver(message, queue)
                count += 1
        return count

    def _open_gate(self) -> Cycle | None:
        """Once for all queues: what waits for room in one of them waits before the next, too."""
        is_watching = not self.gated_queues.isdisjoint(self._active_queues)
        return self.gate.open() if self.gate is not None and is_watching else None

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any
    ) -> None:
        """Consume; with ``no_ack`` taking a message is the end of it."""
        if no_ack:
            self.unrecorded_queues |= {queue}
        super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message, or None."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if no_ack and message is not None:
            self.broker.settle(message.delivery_tag)
        return message

    def _next_delivery_tag(self) -> str:
        return str(next(_delivery_tags))

    def _new_queue(self, queue: str, **_: Any) -> None:
        self.broker.declare(queue)

    def _has_queue(self, queue: str, **_: Any) -> bool:
        return self.broker.exists(queue)

    def _get(self, queue: str, timeout: float | None = None) -> RawMessage:
        del timeout
        message = self.broker.take(queue, self.cycle, record=True)
        if message is None:
            raise Empty
        return message

    def _put(self, queue: str, message: RawMessage, **_: Any) -> None:
        self.broker.put(queue, message)

    def _put_fanout(self, exchange: str, message: RawMessage, routing_key: str, **_: Any) -> None:
        for queue in self._lookup(exchange, routing_key):
            self.broker.put(queue, message)

    def _queue_bind(self, *_: Any) -> None:
        """The table of the exchange, which the base class keeps, is all there is."""

    def _restore(self, message: virtual.Message) -> None:
        self.broker.put_back(message.delivery_tag)

    def _size(self, queue: str) -> int:
        return self.broker.size(queue)

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        self.broker.delete(queue)

    def _purge(self, queue: str) -> int:
        return self.broker.purge(queue)

    def after_reply_message_received(self, queue: str) -> None:
        """Reply queues outlive a reply: more workers may answer."""


class Transport(virtual.Transport):  # type: ignore[misc]
    """Connections to brokers in this process."""

    Channel = Channel
    driver_type = "inferq-memory"
    driver_name = "inferq-memory"
    implements = base.Transport.implements.extend(
        asynchronous=False,
        exchange_type=frozenset(["direct", "topic", "fanout"]),
        heartbeats=False,
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.broker = Broker.named(client.hostname or "default")
        self.state = self.broker.state

    def driver_version(self) -> str:
        """There is no driver."""
        return "N/A"

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver what waits, or wait for it.

        Raises:
            TimeoutError: nothing came in ``timeout`` seconds, or somebody woke us for another
                reason than a message for us, or it is time to look elsewhere again.
        """
        del connection
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            version = self.broker.version
            if self._deliver_ready():
                return
            again_s = self._look_elsewhere()
            if again_s == 0:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            wait_s = min(left, again_s)
            self.broker.wait(version, None if wait_s == math.inf else wait_s)
            if self._deliver_ready():
                return
            if timeout is not None:
                raise TimeoutError

    def _deliver_ready(self) -> bool:
        limit = MESSAGES_PER_DRAIN
        for channel in list(self.channels):
            limit -= channel.deliver_ready(self._deliver, limit)
        return limit < MESSAGES_PER_DRAIN

    def _look_elsewhere(self) -> float:
        hooks = [each.elsewhere for each in self.channels if each.elsewhere is not None]
        return min((look() for look in hooks), default=math.inf)
