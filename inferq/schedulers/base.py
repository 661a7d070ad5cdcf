"""The scheduler contract: what a client needs to get requests answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from celery import Celery

from inferq.errors import UnknownRequest
from inferq.messages import Request, Status
from inferq.results.reply import Reply
from inferq.settings import Settings


class Counts(NamedTuple):
    """Live numbers, each read from what it counts.

    ``held``: requests that have not ended or whose end was not read. ``waiting``: in a queue.
    ``running``: taken by a node. ``unread``: ended, not yet read. The rest is the engine's
    room: blocks of KV cache and slots.
    """

    held: int
    waiting: int
    running: int
    unread: int
    free_blocks: int
    total_blocks: int
    free_slots: int
    total_slots: int


class Scheduler(ABC):
    """Takes requests and fills their replies. Every method is safe from many threads."""

    #: The Celery application that requests are sent through.
    app: Celery

    #: Whether ``put``, ``counts`` and ``cancel_elsewhere`` wait for another machine. The rest
    #: never does.
    waits_for_network: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def start(self) -> None:
        """Get ready to take requests; may block while a model loads.

        Raises:
            EngineStartError: the embedded engine cannot start.
            SchedulerUnavailable: Redis cannot be used.
        """

    @abstractmethod
    def stop(self) -> None:
        """Cancel what has not ended and free everything. A second call does nothing."""

    @abstractmethod
    def put(self, requests: Sequence[Request]) -> list[Reply]:
        """Enqueue requests, in order.

        Raises:
            DuplicateRequest: an id belongs to a live request, or comes twice; none was taken.
            InvalidRequest, RequestTooLarge: the embedded engine can never compute one of them;
                none was taken. Without one, the request fails on its node instead.
            SchedulerUnavailable: the embedded worker has crashed, or Redis is away. In the latter
                case the requests may have been enqueued: putting the same ids again is safe, and
                gives the same replies.
            QueueFull: names exactly those that did not fit; the others were taken.
        """

    @abstractmethod
    def find(self, request_id: str) -> Reply:
        """The reply of a live request.

        Raises:
            UnknownRequest: there is none.
        """

    @abstractmethod
    def cancel(self, request_id: str) -> bool:
        """End a request as cancelled; False when it has ended already.

        Raises:
            UnknownRequest: no live request has this id.
        """

    def cancel_elsewhere(self, request_id: str) -> bool:
        """End a live request that another process has put.

        Raises:
            UnknownRequest: there is none.
            SchedulerUnavailable: Redis is away.
        """
        raise UnknownRequest(request_id)

    def status(self, request_id: str) -> Status:
        """Where a request is.

        Raises:
            UnknownRequest: no live request has this id.
            SchedulerUnavailable: Redis is away.
        """
        ended = self.find(request_id).end is not None
        return Status("ended" if ended else "queued")

    @abstractmethod
    def forget(self, request_id: str) -> None:
        """The caller has read the end of a request; nothing about it is needed any more."""

    @abstractmethod
    def reset(self) -> int:
        """Cancel every request; returns how many had not ended."""

    @abstractmethod
    def counts(self) -> Counts:
        """Live numbers."""
