"""KV caches that a node keeps for requests that nobody wants any more."""

from __future__ import annotations

from inferq.cluster.topic import Topic
from inferq.transfer import Transfer

#: So many are asked of at once.
MOST_CHECKED = 200


def free_unwanted(transfer: Transfer, topic: Topic, age_s: float) -> None:
    """Free the caches, kept for longer than ``age_s``, whose requests are not live any more.

    A message that tells a node to let go could be lost; looking at the records cannot.

    Raises one of link.AWAY.
    """
    old = [entry.request_id for entry in transfer.kept() if entry.age_s > age_s]
    for first in range(0, len(old), MOST_CHECKED):
        transfer.free(topic.ended(old[first : first + MOST_CHECKED]))
