"""The steps of operators: dead letters, queues, shards."""

from __future__ import annotations

from inferq.cluster.answers import text
from inferq.cluster.steps import Steps


class OperatorSteps(Steps):
    """What commands and pages do in a topic."""

    def requeue(self, letter_id: str) -> str:
        """A dead letter becomes a request again: ``requeued``, or a word for why not."""
        answer = self._run(
            "requeue",
            letter=letter_id,
            bases=self._recovery["bases"],
            counts=self._counts,
            max_waiting=self.settings.cluster.max_waiting,
            min_load=self.settings.scheduler_min_load_score,
            lookahead=self.settings.admission.lookahead,
            request_ttl_ms=self._recovery["request_ttl_ms"],
            kept_ms=self._kept_ms,
        )
        return text(answer[0])

    def purge(self, queue: str, most: int, message: str) -> int:
        """Cancel requests that wait in one list; their origins are told.

        Returns how many were taken off it; at most ``most``.
        """
        answer = self._run(
            "purge",
            key=queue.encode("utf-8", "surrogateescape"),
            most=most,
            bases=self._recovery["bases"],
            counts=self._counts,
            message=message,
            request_ttl_ms=self._recovery["request_ttl_ms"],
            kept_ms=self._kept_ms,
        )
        return int(answer[1])

    def set_shards(self, shards: int) -> None:
        """Change the number of shards of the load table; no row is lost."""
        self._run("shards", shards=shards, bases=self._recovery["bases"])
