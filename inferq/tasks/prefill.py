"""The task ``inferq.prefill``: a new request arrives at a node."""

from __future__ import annotations

from typing import Any

from inferq.errors import InvalidRequest
from inferq.messages.fields import as_tuple
from inferq.messages.limits import check_limits
from inferq.tasks.call import Before, Call, read_call
from inferq.tasks.run import run

#: Names of the arguments that are not fields of a request: what was produced before.
PRODUCED, PRODUCED_TEXT = "produced", "produced_text"


async def prefill(self: Any, **fields: Any) -> dict[str, Any] | None:
    """Compute a request. On a mixed node this is the whole answer.

    The keyword arguments are the fields of a Request; the task's id is its id. A request that
    comes back from a decode node also brings what was ``produced`` of its answer.
    """
    node = self.app.node
    before = _before(fields.pop(PRODUCED, ()), fields.pop(PRODUCED_TEXT, ""))
    call = read_call(self.request, fields, node.settings.scheduler_ttl)
    check_limits(call.request, node.settings.limits)
    if node.role == "mixed":
        return await run(node, call, node.engine.generate)
    if not before.token_ids or not node.engine.resumes:
        return await run(node, call, node.engine.prefill, hands_off=True)
    call = call._replace(before=before)
    return await run(node, call, _resuming(node, call), hands_off=True)


def _resuming(node: Any, call: Call) -> Any:
    produced = call.before.token_ids if call.before is not None else ()
    return lambda request: node.engine.prefill(request, produced)


def _before(produced: Any, text: Any) -> Before:
    """What a message says was produced. Raises InvalidRequest."""
    token_ids = as_tuple(produced)
    sound = isinstance(token_ids, tuple) and all(type(t) is int and t >= 0 for t in token_ids)
    if not sound or not isinstance(text, str):
        raise InvalidRequest(PRODUCED, "is no list of token ids with their text")
    return Before(token_ids, text, resend=True)
