"""The transfer contract: how the KV cache of one sequence gets from one process to another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Offer(NamedTuple):
    """A KV cache that is kept for whoever fetches it first.

    ``kv`` is where it is, as it travels in a handoff; ``protocols`` by which it can be fetched,
    best first.
    """

    kv: dict[str, Any]
    protocols: tuple[str, ...]


class Kept(NamedTuple):
    """A KV cache that was offered and not fetched yet. ``age_s``: since it was offered."""

    request_id: str
    nbytes: int
    age_s: float


class Fetched(NamedTuple):
    """A KV cache that has arrived, whole. It crossed by ``protocol`` in ``seconds``.

    ``data`` is the receiver's own: it may be written, and is freed with its last reference.
    """

    data: memoryview
    protocol: str
    seconds: float


class Transfer(ABC):
    """One node's sending and receiving side. For the worker's event loop, except where it says.

    What is kept is bounded in bytes and in time, is freed once it was fetched whole, and is gone
    with the process, however it ends.
    """

    #: By what it can fetch, best first.
    protocols: tuple[str, ...] = ()

    @abstractmethod
    async def start(self) -> None:
        """Serve what will be offered.

        Raises:
            EngineStartError: an address cannot be listened on.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Free everything. A second call does nothing."""

    @abstractmethod
    async def offer(
        self, request_id: str, nbytes: int, fill: Callable[[memoryview], Awaitable[object]]
    ) -> Offer:
        """Keep a KV cache of ``nbytes``, which ``fill`` writes into the given memory.

        ``fill`` is called here and may let another thread write. It may keep no reference to
        the memory; what it raises is raised here, and nothing is kept then.

        Raises:
            EngineError: there is no room for it, or it was freed while it was written.
        """

    @abstractmethod
    async def fetch(self, kv: Mapping[str, Any], protocols: Sequence[str]) -> Fetched:
        """Get a KV cache that another node (or this one) has offered, and have it freed there.

        Raises:
            KvLost: it is gone, cannot be reached, or did not arrive whole.
        """

    @abstractmethod
    async def release(self, kv: Mapping[str, Any]) -> None:
        """Tell the node that keeps a KV cache that nobody will fetch it; failing does nothing."""

    @abstractmethod
    def kept(self) -> list[Kept]:
        """What is kept here, oldest first. For any thread."""

    @abstractmethod
    def free(self, request_ids: Sequence[str]) -> None:
        """Free what is kept for these requests. For any thread."""

    @property
    @abstractmethod
    def is_full(self) -> bool:
        """Whether so much is kept that no more prefills should begin. For any thread."""
