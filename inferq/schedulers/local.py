"""The local scheduler: producer, broker and worker in one process."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Sequence

from inferq.app import create_app
from inferq.errors import QueueFull, SchedulerUnavailable
from inferq.messages import FinishReason, Request
from inferq.results.memory import Store
from inferq.results.reply import Reply
from inferq.routing.topics import decode_queue, prefill_queue
from inferq.schedulers.base import Counts, Scheduler
from inferq.schedulers.ledger import Ledger
from inferq.schedulers.publisher import Publisher
from inferq.schedulers.reaper import Reaper
from inferq.settings import Settings
from inferq.transport import MEMORY_SCHEME
from inferq.transport.broker import Broker
from inferq.worker.embedded import EmbeddedWorker


class LocalScheduler(Scheduler):
    """Holds at most ``scheduler_max_size`` requests, each for at most its lifetime."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._name = f"local-{uuid.uuid4().hex}"
        self._queue = prefill_queue(settings.scheduler_topic)
        self._queues = (self._queue, decode_queue(settings.scheduler_topic))
        url = f"{MEMORY_SCHEME}://{self._name}"
        self.app = create_app(settings, broker_url=url, result_backend=url)
        self._ledger = Ledger(settings.scheduler_max_size)
        self._broker = Broker.named(self._name)
        store = Store.named(self._name)
        store.inboxes[self._name] = self._ledger
        store.bound = settings.limits.max_stored_results
        self._publisher = Publisher(self.app, self._name)
        name = f"inferq@{socket.gethostname()}"
        self._worker = EmbeddedWorker(self.app, self._broker, name, self._on_crash)
        self._crash: str | None = None
        self._stopping = threading.Event()
        self._reaper = Reaper(self._ledger, self._drop)

    def start(self) -> None:
        """Start the worker and wait until it takes requests."""
        try:
            self._worker.start()
        except BaseException:
            self._discard()
            raise
        self._reaper.start()

    def stop(self) -> None:
        """Cancel what has not ended; nothing of it remains in the process."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._ledger.clear("the client was closed")
        self._worker.stop()
        self._reaper.stop()
        self._discard()

    def put(self, requests: Sequence[Request]) -> list[Reply]:
        """Enqueue requests; the expired make room first.

        The engine is in this process, so it is asked at once whether it can compute them.
        """
        self._check_alive()
        lengths = [self._worker.engine.count_tokens(request) for request in requests]
        self._reaper.reap()
        admitted = self._ledger.admit(requests)
        for request, length in zip(requests[: len(admitted.replies)], lengths, strict=False):
            self._publisher.publish(request, self._queue, length)
        self._reaper.watch()
        self._check_alive()
        if admitted.rejected:
            raise QueueFull(
                self.settings.scheduler_max_size,
                [request.request_id for request in admitted.rejected],
                [reply.request_id for reply in admitted.replies],
            )
        return admitted.replies

    def find(self, request_id: str) -> Reply:
        """The reply of a live request."""
        return self._ledger.find(request_id)

    def cancel(self, request_id: str) -> bool:
        """End a request, waiting or running."""
        cancelled = self._ledger.cancel(request_id, "it was cancelled")
        if cancelled:
            self._drop(request_id)
        return cancelled

    def forget(self, request_id: str) -> None:
        """The caller has read the end."""
        self._ledger.forget(request_id)

    def reset(self) -> int:
        """Cancel everything and empty the queues."""
        live = self._ledger.clear("the scheduler was reset")
        for request_id in live:
            self._drop(request_id)
        return len(live)

    def counts(self) -> Counts:
        """Live numbers."""
        capacity = self._worker.engine.capacity()
        return Counts(
            held=len(self._ledger),
            waiting=sum(self._broker.size(queue) for queue in self._queues),
            running=self._broker.claims(),
            unread=self._ledger.unread,
            free_blocks=capacity.free_blocks,
            total_blocks=capacity.total_blocks,
            free_slots=capacity.free_slots,
            total_slots=capacity.total_slots,
        )

    def _on_crash(self, error: BaseException) -> None:
        """Nobody will answer any more: whoever waits is told, and nobody new is let in."""
        self._crash = f"the worker has crashed: {error!r}"
        self._ledger.clear(self._crash, FinishReason.ERROR)

    def _check_alive(self) -> None:
        if self._crash is not None:
            # Once more: a put may have come between the crash and now.
            self._ledger.clear(self._crash, FinishReason.ERROR)
            raise SchedulerUnavailable(self._crash)

    def _drop(self, request_id: str) -> None:
        """Take a request that has ended at its origin away from queue or engine.

        One that is just between the two is refused by the ledger at its first output.
        """
        if not self._broker.remove(request_id):
            self._worker.cancel(request_id)

    def _discard(self) -> None:
        self._publisher.close()
        self.app.close()
        Broker.discard(self._name)
        Store.discard(self._name)
