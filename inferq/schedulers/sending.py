"""Requests on their way into the topic's queues: messages, batches, repetition."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from inferq.cluster.keys import step_of
from inferq.cluster.placing import Placing
from inferq.cluster.topic import Item, Submitted, Topic
from inferq.errors import InvalidRequest
from inferq.messages import Request
from inferq.results.reply import Reply
from inferq.routing.topics import prefill_queue
from inferq.schedulers.retrying import RetryingTopic
from inferq.settings import Settings
from inferq.tasks.messages import Messages, RawMessages

#: Bounds of what is sent in one step, so that Redis is not held up for long.
MOST_ITEMS = 500
MOST_BYTES = 8_000_000
#: The longest envelope: six numbers, and an id of which each sign is quoted.
MOST_ENVELOPE_BYTES = 800


class Parcel(NamedTuple):
    """A request that is to be sent. ``token`` marks repetitions of the same put."""

    item: Item
    reply: Reply
    token: str


class Sender:
    """Sends the requests of one origin, to one node or to the topic.

    ``node``: the name of the node whose queue takes them, empty for the shared queue. ``placing``
    chooses nodes instead.
    """

    def __init__(
        self,
        settings: Settings,
        messages: Messages,
        topic: RetryingTopic,
        origin: str,
        node: str,
        placing: Placing | None = None,
    ) -> None:
        queue = prefill_queue(settings.scheduler_topic, node or None)
        self._messages = RawMessages(messages, queue)
        self._topic = topic
        self._origin = origin
        self._node = node
        self._placing = placing
        self._most_bytes = settings.limits.max_message_bytes

    def pack(self, request: Request) -> Item:
        """A request as it is sent.

        Raises:
            InvalidRequest: no node would read a message of this size.
        """
        message = self._messages.build(request)
        size = len(message) + MOST_ENVELOPE_BYTES
        if size > self._most_bytes:
            raise InvalidRequest(
                _prompt_field(request),
                f"the message would be {size} bytes; limits.max_message_bytes is "
                f"{self._most_bytes}",
            )
        return Item(
            message,
            request.request_id,
            step_of(request.priority),
            max(0.001, (request.deadline or 0.0) - time.time()),
            len(request.prompt_token_ids or ()),
            request.max_tokens,
        )

    def send(self, parcels: Sequence[Parcel]) -> Submitted:
        """Send in order, until one batch is not taken as a whole.

        ``accepted`` counts from the first parcel on, also beside ``duplicates``.

        Raises:
            StillAway: which were taken is not known.
            SchedulerUnavailable: Redis refuses; those that follow were not taken.
        """
        accepted = 0
        for batch in _batches(parcels):
            submitted = self._send_batch(batch)
            accepted += submitted.accepted
            if submitted.accepted < len(batch):
                return Submitted(accepted, submitted.duplicates)
        return Submitted(accepted)

    def _send_batch(self, batch: Sequence[Parcel]) -> Submitted:
        def submit(topic: Topic) -> Submitted:
            # What has come through is not sent again, even after it has ended and was forgotten.
            left = [parcel.item for parcel in batch if not parcel.reply.started]
            if not left:
                return Submitted(len(batch))
            answer = self._submit(topic, batch[0].token, left)
            known = 0 if answer.duplicates else len(batch) - len(left)
            return Submitted(answer.accepted + known, answer.duplicates)

        return self._topic.call(submit)

    def _submit(self, topic: Topic, token: str, items: Sequence[Item]) -> Submitted:
        placing = self._placing
        if placing is None:
            return topic.submit(self._origin, token, items, self._node)
        answer = topic.submit(self._origin, token, placing.place_items(topic, items))
        placing.learn(topic, "prefill", answer.placed)
        return answer


def _batches(parcels: Sequence[Parcel]) -> Iterator[Sequence[Parcel]]:
    """Neighbours with one token, so many that they can be sent in one step."""
    first, size = 0, 0
    for at, parcel in enumerate(parcels):
        length = len(parcel.item.message)
        full = at - first >= MOST_ITEMS or size + length > MOST_BYTES
        if at > first and (full or parcel.token != parcels[first].token):
            yield parcels[first:at]
            first, size = at, 0
        size += length
    if parcels:
        yield parcels[first:]


def _prompt_field(request: Request) -> str:
    fields = ("prompt", "prompt_token_ids", "messages")
    return next(name for name in fields if getattr(request, name) is not None)
