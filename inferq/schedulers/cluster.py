"""The global and splitwise schedulers, as a producer sees them: nodes elsewhere share one Redis."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from inferq.app import create_cluster_app
from inferq.cluster.keys import ORIGIN_PREFIX, unquoted
from inferq.cluster.placing import Placing
from inferq.cluster.status import read_status
from inferq.cluster.topic import Submitted, Topic
from inferq.cluster.view import View
from inferq.errors import DuplicateRequest, QueueFull, SchedulerUnavailable, UnknownRequest
from inferq.messages import Request, Status
from inferq.results.inbox import StreamInbox
from inferq.results.reply import Reply
from inferq.schedulers.base import Counts, Scheduler
from inferq.schedulers.errands import Errands
from inferq.schedulers.ledger import Ledger
from inferq.schedulers.reaper import Reaper
from inferq.schedulers.retrying import RetryingTopic, StillAway
from inferq.schedulers.sending import Parcel, Sender
from inferq.settings import Settings
from inferq.tasks.messages import Messages

T = TypeVar("T")

_IN_DOUBT = (
    "Redis does not answer ({reason}); it is not known whether the requests were enqueued: "
    "submit again with the same ids, they will not run twice"
)
_CLOSED = "the client was closed"
_AWAY = "Redis does not answer ({reason})"


class ClusterScheduler(Scheduler):
    """An origin: sends requests into the topic's queues and reads their outputs from its streams.

    ``node``: name of the node whose own queue takes the requests; empty: the topic's nodes, as
    placement says (splitwise), or whoever is free.
    """

    waits_for_network = True

    def __init__(self, settings: Settings, node: str = "") -> None:
        super().__init__(settings)
        self.origin = f"{ORIGIN_PREFIX}{uuid.uuid4().hex}.{settings.scheduler_reader_parallel}"
        self.app = create_cluster_app(settings)
        self._ledger = Ledger(0)
        self._inbox = StreamInbox(settings, self.origin, self._ledger)
        self._errands = Errands(settings, self.origin, self._inbox)
        self._reaper = Reaper(self._ledger, self._errands.cancel)
        self._stopping = threading.Event()
        self._topic = RetryingTopic(settings, self._stopping)
        # Of its own: questions and cancellations do not wait behind a put.
        self._questions = RetryingTopic(settings, self._stopping)
        messages = Messages(self.app, self.origin)
        splitwise = settings.scheduler_name == "splitwise"
        placing = Placing(settings, ["prefill"]) if splitwise and not node else None
        self._sender = Sender(settings, messages, self._topic, self.origin, node, placing)

    def start(self) -> None:
        """Make the streams, and read them.

        Raises:
            SchedulerUnavailable: Redis cannot be used.
        """
        try:
            self._ask(lambda topic: topic.require_rights("producer"))
            self._ask(lambda topic: self._inbox.keep(topic.link))
        except BaseException:
            self._close_links()
            raise
        self._inbox.start()
        self._errands.start()
        self._reaper.start()

    def stop(self) -> None:
        """Cancel what has not ended, and forget the streams."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._reaper.stop()
        self._errands.cancel(*self._ledger.clear(_CLOSED))
        self._inbox.stop()
        self._errands.stop()
        self._close_links()

    def put(self, requests: Sequence[Request]) -> list[Reply]:
        """Enqueue requests for the nodes of the topic."""
        items = [self._sender.pack(request) for request in requests]
        names = [request.request_id for request in requests]
        if not self._errands.wait_for(names, self.settings.cluster.redis_timeout_s):
            raise SchedulerUnavailable(_AWAY.format(reason="an id is still to be cancelled there"))
        token = f"{random.getrandbits(128):032x}"
        tokens = [self._ledger.token_of(name) or token for name in names]
        replies = self._ledger.admit(requests).replies
        self._reaper.watch()
        parcels = [Parcel(*row) for row in zip(items, replies, tokens, strict=True)]
        replies = self._settle(parcels, self._send(parcels, token), token)
        if self._stopping.is_set():  # between the first line and now
            self._ledger.clear(_CLOSED)
        return replies

    def find(self, request_id: str) -> Reply:
        """The reply of a live request of this origin."""
        return self._ledger.find(request_id)

    def cancel(self, request_id: str) -> bool:
        """End a request of this origin; its node hears of it soon."""
        cancelled = self._ledger.cancel(request_id, "it was cancelled")
        if cancelled:
            self._errands.cancel(request_id)
        return cancelled

    def cancel_elsewhere(self, request_id: str) -> bool:
        """End a live request of any origin of the topic; its origin is told."""
        was = self._ask(
            lambda topic: topic.cancel(request_id, tell=True, message="it was cancelled elsewhere")
        )
        if was == "unknown":
            raise UnknownRequest(request_id)
        return True

    def status(self, request_id: str) -> Status:
        """Where a request is, whoever has submitted it."""
        return self._ask(lambda topic: read_status(topic, request_id))

    def forget(self, request_id: str) -> None:
        """The caller has read the end."""
        self._ledger.forget(request_id)

    def reset(self) -> int:
        """Cancel every request of this origin."""
        live = self._ledger.clear("the scheduler was reset")
        self._errands.cancel(*live)
        return len(live)

    def counts(self) -> Counts:
        """Live numbers: of this origin's requests, and of the topic's queues and nodes."""
        return self._ask(self._count)

    def _count(self, topic: Topic) -> Counts:
        view = View(topic)
        nodes = [node for node in view.nodes() if node.live]
        return Counts(
            held=len(self._ledger),
            waiting=sum(view.queue_lengths([node.name for node in nodes]).values()),
            running=view.claims(),
            unread=self._ledger.unread,
            free_blocks=sum(node.free_blocks for node in nodes),
            total_blocks=sum(node.total_blocks for node in nodes),
            free_slots=sum(node.free_slots for node in nodes),
            total_slots=sum(node.total_slots for node in nodes),
        )

    def _ask(self, work: Callable[[Topic], T]) -> T:
        try:
            return self._questions.call(work)
        except StillAway as exc:
            raise SchedulerUnavailable(_AWAY.format(reason=exc)) from None

    def _send(self, parcels: Sequence[Parcel], token: str) -> Submitted:
        try:
            return self._sender.send(parcels)
        except StillAway as exc:
            for parcel in parcels:
                self._ledger.doubt([parcel.item.request_id], parcel.token)
            raise SchedulerUnavailable(_IN_DOUBT.format(reason=exc)) from None
        except SchedulerUnavailable:
            self._take_back(parcels, token)
            raise

    def _settle(self, parcels: Sequence[Parcel], submitted: Submitted, token: str) -> list[Reply]:
        if submitted.duplicates:
            names = {unquoted(name) for name in submitted.duplicates}
            self._take_back(parcels, token, names)
            raise DuplicateRequest(next(iter(names)))
        taken, rejected = parcels[: submitted.accepted], parcels[submitted.accepted :]
        ids = [parcel.item.request_id for parcel in taken]
        self._ledger.doubt(ids, "")
        # Who cancelled meanwhile may have done so before there was anything to cancel.
        self._errands.cancel(*(name for name in ids if name not in self._ledger))
        if rejected:
            over = [parcel.item.request_id for parcel in rejected]
            for name in over:
                self._ledger.forget(name)
            bound = self.settings.cluster.max_waiting
            raise QueueFull(bound, over, ids, "cluster.max_waiting")
        return [parcel.reply for parcel in taken]

    def _take_back(
        self, parcels: Sequence[Parcel], token: str, names: Collection[str] = ()
    ) -> None:
        """Hold nothing of a put that has failed; what was in doubt before it remains so."""
        mine = [
            parcel.item.request_id
            for parcel in parcels
            if parcel.token == token or parcel.item.request_id in names
        ]
        for name in mine:
            self._ledger.forget(name)
        self._errands.cancel(*mine)

    def _close_links(self) -> None:
        self._topic.close()
        self._questions.close()
        self.app.close()
