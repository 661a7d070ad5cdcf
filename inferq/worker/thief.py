"""Stealing where no script of ours can do it: through Kombu's portable ``basic_get``.

Each node has a queue of its own beside the shared one. A stolen message is delivered as if it had
been consumed, and its acknowledgement or return goes to the queue that it came from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.utils.nodenames import default_nodename
from kombu import Queue

from inferq.routing.stealing import Victim, surplus
from inferq.routing.topics import prefill_queue
from inferq.transport.broker import Backlog, Broker, Owner
from inferq.transport.gate import RawMessage, Verdict
from inferq.transport.memory import Channel
from inferq.worker.intake import Intake, Look

if TYPE_CHECKING:
    from inferq.app import InferqApp


def among_others(app: InferqApp, node: str) -> None:
    """Let the worker called ``node`` share a memory broker; before the worker is made."""
    topic = app.settings.scheduler_topic
    names = (prefill_queue(topic, default_nodename(node)), prefill_queue(topic))
    app.conf.task_queues = [Queue(name, routing_key=name) for name in names]
    app.steps["consumer"].add(ThiefStep)


class ThiefStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Makes a node known to others on its broker, and lets it steal while it is idle."""

    requires = ("inferq.worker.steps:IntakeStep",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._thief: Thief | None = None

    def start(self, consumer: Any) -> None:
        """Join, for each new connection."""
        self._thief = Thief(consumer)
        self._thief.join()

    def stop(self, consumer: Any) -> None:
        """Leave: what waits in the own queue is for others."""
        del consumer
        if self._thief is not None:
            self._thief.leave()

    def info(self, consumer: Any) -> dict[str, int]:
        """Shown by ``inspect stats``."""
        del consumer
        return {"inferq_stolen": self._thief.stolen if self._thief is not None else 0}


class Thief:
    """Looks around when the consumer has nothing to do; on the consumer's thread."""

    def __init__(self, consumer: Any) -> None:
        settings = consumer.app.settings
        self._min_load = settings.scheduler_min_load_score
        self._steal_after_s = settings.cluster.steal_after_s
        self._most = settings.cluster.claim_batch
        self._own = prefill_queue(settings.scheduler_topic, consumer.hostname)
        self._intake: Intake = consumer.app.node.intake
        self._consumer = consumer.task_consumer
        self._channel: Channel = consumer.task_consumer.channel
        self._broker: Broker = self._channel.broker
        #: Messages taken from other nodes' queues.
        self.stolen = 0

    def join(self) -> None:
        """Be seen by others, and look around from now on."""
        claims = self._intake.claims
        self._broker.owners[self._own] = Owner(claims.__len__, self._intake.rule.longest)
        self._channel.elsewhere = self.look

    def leave(self) -> None:
        """Others take over the own queue, also what returns to it later."""
        self._broker.owners[self._own] = Owner(lambda: 0, 0, is_gone=True)
        self._broker.wake()

    def look(self) -> float:
        """Steal from the most loaded node that has something to fit here.

        Returns seconds until there may be something to steal that nobody signals: a head that has
        waited long enough. 0: something was taken.
        """
        look = self._intake.open() if self._is_idle() else None
        if look is None:
            return math.inf
        # Two thieves that see the same surplus would take it twice.
        with self._broker.stealing:
            return self._steal(look, len(self._intake.claims))

    def _is_idle(self) -> bool:
        # A node that was told to consume no more does not steal either.
        return bool(self._consumer.consuming_from(self._own)) and not any(
            self._broker.size(queue.name) for queue in self._consumer.queues
        )

    def _steal(self, look: Look, own_load: int) -> float:
        again_s = math.inf
        self._channel.cycle = _Visit(look, self._intake, self._longest())
        try:
            for queue, (_, load, waited_s) in self._victims():
                victim = Victim(load, waited_s)
                most = surplus(victim, own_load, self._min_load, self._steal_after_s)
                if self._take(queue, min(most, self._most)):
                    return 0.0
                if waited_s < self._steal_after_s:
                    again_s = min(again_s, self._steal_after_s - waited_s)
        finally:
            self._channel.cycle = None
        return again_s

    def _take(self, queue: str, most: int) -> int:
        taken = 0
        while taken < most:
            # Not ``Queue.get``: it raises on a damaged message, which nobody could reject then.
            message = self._channel.basic_get(queue, no_ack=False)
            if message is None:
                break
            taken += 1
            self._consumer._receive_callback(message)  # noqa: SLF001 - as Kombu's consumer does
        self.stolen += taken
        return taken

    def _victims(self) -> list[tuple[str, Backlog]]:
        """Other nodes with something to steal, the most loaded first."""
        queues = [queue for queue in list(self._broker.owners) if queue != self._own]
        backlogs = [(queue, self._broker.backlog(queue)) for queue in queues]
        waiting = [each for each in backlogs if each[1].waiting]
        return sorted(waiting, key=lambda each: -each[1].load)

    def _longest(self) -> int:
        return max(owner.longest for owner in list(self._broker.owners.values()))


class _Visit:
    """A Cycle: a look at other nodes' queues, with the room that this node has.

    ``longest``: the largest request that any node can hold, tokens. One that only others can hold
    stays where it is.
    """

    def __init__(self, look: Look, intake: Intake, longest: int) -> None:
        self._look = look
        self._intake = intake
        self._longest = longest
        self._left = 0

    def judge(self, message: RawMessage) -> Verdict:
        """As the intake does, for a queue that is not the node's own."""
        size = self._intake.size_of(message)
        rule = self._intake.rule
        if size is None or not rule.never_fits(size) or sum(size) > self._longest:
            return self._look.judge(message)
        self._left += 1
        return Verdict.STOP if self._left > rule.settings.lookahead else Verdict.PASS
