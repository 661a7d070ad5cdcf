"""The task ``inferq.decode``: a prefilled request arrives at a node."""

from __future__ import annotations

from typing import Any

from inferq.messages import Handoff
from inferq.tasks.run import read_call, run


async def decode(self: Any, handoff: Any = None, **fields: Any) -> dict[str, Any] | None:
    """Continue a request behind what its ``handoff`` says was produced already."""
    node = self.app.node
    given = Handoff.parse(handoff)
    call = read_call(self.request, fields, node.settings.scheduler_ttl)
    call = call._replace(first_index=len(given.token_ids))
    return await run(node, call, lambda request: node.engine.decode(request, given))
