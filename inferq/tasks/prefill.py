"""The task ``inferq.prefill``: a new request arrives at a node."""

from __future__ import annotations

from typing import Any

from inferq.tasks.run import read_call, run


async def prefill(self: Any, **fields: Any) -> dict[str, Any] | None:
    """Compute a request. On a mixed node this is the whole answer.

    The keyword arguments are the fields of a Request; the task's id is its id.
    """
    node = self.app.node
    call = read_call(self.request, fields, node.settings.scheduler_ttl)
    return await run(node, call, node.engine.generate)
