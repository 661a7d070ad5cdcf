"""How the steps of a topic reach Redis, and what all of them need."""

from __future__ import annotations

from typing import Any

from inferq.cluster.keys import prefix_of
from inferq.cluster.link import Link, ScriptName
from inferq.cluster.rights import Part, require_rights
from inferq.cluster.rows import Fenced
from inferq.routing.topics import decode_queue, prefill_queue
from inferq.settings import Settings

#: Raw messages in dead letters are cut at this length, bytes.
MAX_LETTER_BYTES = 65_536


class Steps:
    """Runs a topic's scripts over one link. For one thread, like the link.

    Every method raises one of ``link.AWAY`` when Redis cannot be reached, and those that act for
    a node raise Fenced when it has lost its lease.
    """

    def __init__(self, settings: Settings, link: Link) -> None:
        self.settings = settings
        self.link = link
        self.prefix = prefix_of(settings.scheduler_topic)
        #: The shared queues: of new requests, of prefilled ones.
        self.base = prefill_queue(settings.scheduler_topic)
        self.decode_base = decode_queue(settings.scheduler_topic)
        #: Whether the work of each node is counted, for placing.
        self._counts = settings.scheduler_name == "splitwise"
        cluster = settings.cluster
        #: How long a producer may still repeat a call; twice what one call takes at most.
        self._kept_ms = int(cluster.redis_timeout_s * 2000)
        lease_ms = int(cluster.lease_ttl_s * 1000)
        #: What recovery needs, whichever step finds a lapsed node.
        self._recovery = {
            "bases": [self.base, self.decode_base],
            "counts": self._counts,
            "max_attempts": cluster.max_attempts,
            "max_dead": cluster.max_dead_letters,
            "max_letter_bytes": MAX_LETTER_BYTES,
            "lease_ms": lease_ms,
            "grave_ms": 2 * lease_ms + 1000,
            "request_ttl_ms": settings.scheduler_ttl * 1000,
            "kept_ms": self._kept_ms,
        }

    def require_rights(self, part: Part) -> None:
        """See that the connection's user has all rights, before a script misses one half way.

        Raises:
            NoPermissionError: names those that are missing.
        """
        require_rights(self.link, part, self.settings)

    def _run(self, name: ScriptName, **arguments: Any) -> list[Any]:
        answer = self.link.run(name, {"prefix": self.prefix, **arguments})
        if answer[0] == b"fenced":
            raise Fenced
        return answer
