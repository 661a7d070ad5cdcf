"""The steps of producers: submit, cancel."""

from __future__ import annotations

from collections.abc import Sequence

from inferq.cluster.answers import text
from inferq.cluster.keys import quoted
from inferq.cluster.packing import Placements, needed_tokens, read_placed, to_row
from inferq.cluster.rows import Item, Submitted
from inferq.cluster.steps import Steps


class ProducerSteps(Steps):
    """What a producer does in a topic."""

    def submit(self, origin: str, token: str, items: Sequence[Item], node: str = "") -> Submitted:
        """Enqueue requests, all or none if an id is in use. Their time runs by Redis' clock.

        With ``node`` they go to that node's queue, if it is ready. Repeating a call with the same
        origin and token is safe: what it has enqueued before counts as accepted.
        """
        placements = Placements(self.base)
        answer = self._run(
            "submit",
            base=self.base,
            bases=self._recovery["bases"],
            counts=self._counts,
            node=node,
            origin=origin,
            token=token,
            items=[
                (*to_row(item), placements.add(item.target, needed_tokens(item))) for item in items
            ],
            placements=placements.rows,
            max_waiting=self.settings.cluster.max_waiting,
            min_load=self.settings.scheduler_min_load_score,
            lookahead=self.settings.admission.lookahead,
            kept_ms=self._kept_ms,
        )
        if answer[0] == b"duplicate":
            return Submitted(0, tuple(map(text, answer[1])))
        return Submitted(answer[1], placed=tuple(read_placed(*row) for row in answer[2]))

    def cancel(
        self, request_id: str, *, origin: str = "", tell: bool = False, message: str = ""
    ) -> str:
        """Cancel a live request: ``queued``, ``running`` or ``unknown``.

        With ``origin``, a request of anybody else is unknown. ``tell``: its origin is to hear of
        it, with ``message``.
        """
        return self._end(request_id, origin=origin, tell=tell, message=message or "cancelled")

    def fail_half(self, request_id: str, holder: str, code: str, message: str) -> str:
        """The half of a request that the incarnation ``holder`` computes has failed."""
        return self._end(
            request_id, holder=holder, tell=True, reason="error", code=code, message=message
        )

    def _end(
        self,
        request_id: str,
        *,
        origin: str = "",
        holder: str = "",
        tell: bool = False,
        reason: str = "cancelled",
        code: str = "cancelled",
        message: str,
    ) -> str:
        answer = self._run(
            "cancel",
            id=quoted(request_id),
            bases=self._recovery["bases"],
            origin=origin,
            holder=holder,
            tell=tell,
            reason=reason,
            code=code,
            message=message,
            request_ttl_ms=self._recovery["request_ttl_ms"],
        )
        return text(answer[0])
