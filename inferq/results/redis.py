"""Result backend over Redis: Celery's own for producers, with a node's outbox in a worker."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str

from inferq.messages import Output
from inferq.results.outbox import StreamOutbox


class StreamBackend(RedisBackend):  # type: ignore[misc]
    """Reads and waits as stock Celery does. In a worker, results go through the outbox.

    There a result travels with the end of its claim: a node that lost its lease stores none.
    """

    outbox: StreamOutbox | None = None

    def send(self, origin: str, output: Output) -> bool:
        """Pass an output on to its origin; see ``results.base.Outbox``."""
        del origin  # the claim knows
        return self.outbox is not None and self.outbox.send(output)

    def is_congested(self, request_id: str) -> bool:
        """Whether the request had better wait before it produces more."""
        return self.outbox is not None and self.outbox.is_congested(request_id)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        if self.outbox is None:
            return super()._store_result(task_id, result, state, traceback, request, **kwargs)
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        key, value = self.get_key_for_task(task_id), self.encode(meta)
        self.outbox.store(
            meta["task_id"],
            bytes_to_str(key),
            value.encode() if isinstance(value, str) else value,
            max(1, int(self.expires or 0)),
        )
        return result
