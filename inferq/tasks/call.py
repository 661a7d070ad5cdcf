"""One attempt at one phase of a request, as its message describes it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from inferq.errors import InvalidRequest
from inferq.messages import Crossing, Handoff, Request
from inferq.messages.headers import ATTEMPT_HEADER, DEADLINE_HEADER, SUBMITTED_HEADER
from inferq.worker.strategy import REFUSED_HEADER


class Before(NamedTuple):
    """What an earlier phase has produced of the answer, and how.

    ``resend``: in another attempt, so that the origin must hear it again. ``queue_s`` and
    ``prefill_s``: times of that phase.
    """

    token_ids: tuple[int, ...] = ()
    text: str = ""
    resend: bool = False
    queue_s: float = 0.0
    prefill_s: float = 0.0
    crossing: Crossing | None = None


#: What Celery does when a task has ended, as the task's message names it.
FOLLOWERS = ("callbacks", "errbacks", "chain", "chord", "group", "group_index")


class Call(NamedTuple):
    """What a task is to do. ``queue_s``: how long the request has waited, seconds.

    ``followers``: what its producer has linked to it, which the task that ends the request sends.
    """

    request: Request
    origin: str
    attempt: int
    delivery_tag: str
    queue_s: float
    wants_result: bool
    before: Before | None = None
    followers: Mapping[str, Any] = {}


def read_call(context: Any, fields: Mapping[str, Any], ttl_s: float) -> Call:
    """Check a message and fill in what a stock producer leaves out.

    Raises:
        InvalidRequest: a field is wrong.
    """
    if context.get(REFUSED_HEADER):
        raise InvalidRequest("eta", "a request cannot wait for a time; submit it when it is due")
    now = time.time()
    latest = _number(context.get(DEADLINE_HEADER), float, now + ttl_s)
    defaults = {"seed": random.getrandbits(32), "deadline": latest}
    request = Request.parse({**defaults, **fields, "request_id": context.id})
    if request.deadline is not None and request.deadline > latest:
        request = request.model_copy(update={"deadline": latest})
    return Call(
        request=request,
        origin=context.reply_to or "",
        attempt=_number(context.get(ATTEMPT_HEADER), int, 0),
        delivery_tag=str(context.properties.get("delivery_tag", "")),
        queue_s=max(0.0, now - _number(context.get(SUBMITTED_HEADER), float, now)),
        wants_result=not context.ignore_result,
        followers={
            name: value for name in FOLLOWERS if (value := context.get(name)) not in (None, [])
        },
    )


def behind(call: Call, handoff: Handoff) -> Call:
    """The call, to be continued behind what its handoff says."""
    before = Before(
        handoff.token_ids,
        handoff.text,
        call.attempt != handoff.attempt,
        handoff.queue_s,
        handoff.prefill_s,
        Crossing(handoff.node),
    )
    return call._replace(before=before)


def _number(value: Any, kind: Callable[[Any], Any], default: Any) -> Any:
    return kind(value) if type(value) in (int, float) and value >= 0 else default
