"""From phase to phase: requests that go on at another node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from celery import Celery

from inferq.messages import Handoff
from inferq.results.outbox import StreamOutbox
from inferq.routing.topics import decode_queue, prefill_queue
from inferq.settings import Settings
from inferq.tasks.call import Call
from inferq.tasks.messages import ANY_ORIGIN, Messages, RawMessages
from inferq.tasks.names import DECODE, PREFILL
from inferq.tasks.prefill import PRODUCED, PRODUCED_TEXT


class Leg(NamedTuple):
    """Where a request goes: the shared queue of a phase, and the messages for it, by whether
    somebody wants the result from Celery's backend.
    """

    queue: str
    messages: Mapping[bool, RawMessages]


class Onward:
    """Builds the messages of the next phase; the outbox sends them with what was produced."""

    def __init__(self, app: Celery, settings: Settings, outbox: StreamOutbox) -> None:
        messages = Messages(app, ANY_ORIGIN)
        self._outbox = outbox
        topic = settings.scheduler_topic
        self._decode = _leg(messages, decode_queue(topic), DECODE)
        self._prefill = _leg(messages, prefill_queue(topic), PREFILL)

    def to_decode(self, call: Call, handoff: Handoff) -> None:
        """The request is to be decoded, from what its handoff says."""
        fields = handoff.model_dump(exclude_defaults=True)
        self._send(self._decode, call, handoff, {"handoff": fields})

    def back_to_prefill(self, call: Call, handoff: Handoff) -> None:
        """The request is to be prefilled again, with what was produced, as its next attempt."""
        fields = {PRODUCED: handoff.token_ids, PRODUCED_TEXT: handoff.text}
        also = fields if handoff.token_ids else {}
        self._send(self._prefill, call, handoff, also, again=True)

    def _send(
        self,
        leg: Leg,
        call: Call,
        handoff: Handoff,
        also: Mapping[str, Any],
        *,
        again: bool = False,
    ) -> None:
        message = leg.messages[call.wants_result].build(
            call.request, also, call.origin, call.followers
        )
        produced = len(handoff.token_ids)
        self._outbox.hop(
            call.request.request_id,
            leg.queue,
            message,
            (handoff.prompt_tokens + produced, max(1, call.request.max_tokens - produced)),
            again=again,
            holds=not again and handoff.family == "concurrent",
        )


def _leg(messages: Messages, queue: str, task: str) -> Leg:
    by_result = {
        wanted: RawMessages(messages, queue, task=task, ignore_result=not wanted)
        for wanted in (True, False)
    }
    return Leg(queue, by_result)
