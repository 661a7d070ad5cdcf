"""The task ``inferq.decode``: a prefilled request arrives at a node."""

from __future__ import annotations

from typing import Any

from celery.exceptions import Ignore

from inferq.engines.base import Received
from inferq.errors import KvLost
from inferq.messages import Handoff
from inferq.tasks.call import Call, behind, read_call
from inferq.tasks.run import in_time, run
from inferq.worker.node import Node


async def decode(self: Any, handoff: Any = None, **fields: Any) -> dict[str, Any] | None:
    """Continue a request behind what its ``handoff`` says was produced already.

    When the KV cache cannot be had, the request goes back to be prefilled again.
    """
    node: Node = self.app.node
    given = Handoff.parse(handoff)
    call = behind(read_call(self.request, fields, node.settings.scheduler_ttl), given)
    try:
        return await _decode(node, call, given)
    except KvLost as exc:
        if node.onward is None:
            raise
        node.onward.back_to_prefill(call, given)
        raise Ignore(f"it is to be prefilled again: {exc}") from exc


async def _decode(node: Node, call: Call, given: Handoff) -> dict[str, Any] | None:
    if given.family == "concurrent" and call.attempt != given.attempt:
        raise KvLost("a node that computed a half of it was lost; the other half is void")
    if node.was_deserted(call.request.request_id):
        raise KvLost("the node that computed the other half was lost")
    try:
        received = await in_time(call, lambda: node.engine.receive(given))
    except KvLost:
        if node.onward is not None:
            raise
        received = Received()  # there is nobody else: this engine computes it again
    except BaseException:  # such as a cancellation
        await node.release_kv(given)
        raise
    call = _with_crossing(call, received)
    return await run(node, call, lambda request: node.engine.decode(request, given, received))


def _with_crossing(call: Call, received: Received) -> Call:
    before = call.before
    assert before is not None
    assert before.crossing is not None
    crossing = before.crossing._replace(
        protocol=received.protocol, nbytes=received.nbytes, seconds=received.seconds
    )
    return call._replace(before=before._replace(crossing=crossing))
