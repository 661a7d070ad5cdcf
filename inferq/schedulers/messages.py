"""Requests as Celery task messages, built by Celery's own protocol code."""

from __future__ import annotations

import json
import time
import uuid
from base64 import b64encode
from typing import Any, NamedTuple

import msgpack
from celery import Celery

from inferq.messages import Request
from inferq.messages.headers import SUBMITTED_HEADER
from inferq.tasks import PREFILL

CONTENT_TYPE = "application/x-msgpack"
CONTENT_ENCODING = "binary"


class TaskMessage(NamedTuple):
    """A task on its way: message headers, message properties, body in msgpack."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: bytes


class Messages:
    """Builds the messages of one origin.

    ``Celery.send_task`` would do the same with a pool of connections, a router and a textual
    form of every argument, which costs several times as much. The deadline travels in the
    request, where the task reads it: Celery's ``expires`` would have every message parse a date.
    """

    def __init__(self, app: Celery, origin: str) -> None:
        self._as_task = app.amqp.as_task_v2
        self._origin = origin

    def build(self, request: Request) -> TaskMessage:
        """The message of the task that computes a request."""
        headers, properties, body, _ = self._as_task(
            request.request_id,
            PREFILL,
            kwargs=request.to_wire(),
            reply_to=self._origin,
            origin=self._origin,
            ignore_result=True,
            argsrepr="()",
            kwargsrepr=_describe(request),
        )
        headers[SUBMITTED_HEADER] = time.time()
        return TaskMessage(headers, properties, msgpack.packb(body))

    def build_raw(self, request: Request, queue: str) -> bytes:
        """The same as Kombu's Redis transport writes it into a queue: a JSON object."""
        headers, properties, body = self.build(request)
        properties |= {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": request.priority,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        }
        rest = json.dumps(
            {
                "content-encoding": CONTENT_ENCODING,
                "content-type": CONTENT_TYPE,
                "headers": headers,
                "properties": properties,
            }
        )
        # Base64 needs no escapes: a long prompt does not have to pass through the JSON encoder.
        return b'{"body": "%b", %b' % (b64encode(body), rest[1:].encode())


def _describe(request: Request) -> str:
    """What Flower shows of a request: sizes, never its text."""
    if request.prompt_token_ids is not None:
        prompt = f"{len(request.prompt_token_ids)} tokens"
    elif request.prompt is not None:
        prompt = f"{len(request.prompt)} characters"
    else:
        prompt = f"{len(request.messages or ())} messages"
    return f"{{prompt: {prompt}, max_tokens: {request.max_tokens}}}"
