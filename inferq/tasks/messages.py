"""Requests as Celery task messages, in the form of Celery's own protocol code."""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from base64 import b64encode
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as as_json
from typing import Any, NamedTuple

import msgpack
from celery import Celery

from inferq.messages import Request
from inferq.messages.headers import SUBMITTED_HEADER
from inferq.tasks.names import PREFILL

CONTENT_TYPE = "application/x-msgpack"
CONTENT_ENCODING = "binary"


class TaskMessage(NamedTuple):
    """A task on its way: message headers, message properties, body."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any


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
        """The message of the task that computes a request; its body in msgpack."""
        message = self.of_task(request.request_id, request.to_wire(), describe(request))
        return message._replace(body=msgpack.packb(message.body))

    def of_task(
        self,
        request_id: str,
        fields: dict[str, Any],
        shown: str,
        *,
        task: str = PREFILL,
        ignore_result: bool = True,
    ) -> TaskMessage:
        """A message with a body that is not encoded. ``shown``: what Flower shows of the fields."""
        headers, properties, body, _ = self._as_task(
            request_id,
            task,
            kwargs=fields,
            reply_to=self._origin,
            origin=self._origin,
            ignore_result=ignore_result,
            argsrepr="()",
            kwargsrepr=shown,
        )
        headers[SUBMITTED_HEADER] = time.time()
        return TaskMessage(headers, properties, body)


# What stands for the parts of a message that differ; nothing else looks like it.
_ID, _SHOWN, _SUBMITTED, _TAG, _PRIORITY, _BODY, ANY_ORIGIN = (
    f"<{n}-{uuid.uuid4().hex}>" for n in range(7)
)
_PART = re.compile(r'"(<\d-[0-9a-f]{32}>)"')


class RawMessages:
    """Builds messages as Kombu's Redis transport writes them into a queue: JSON objects.

    Only a few parts of a message differ from the next one's. What is between them is encoded
    once, for encoding it each time would cost more than all the rest. Messages on behalf of several
    origins are made by ``Messages(app, ANY_ORIGIN)``.
    """

    def __init__(
        self, messages: Messages, queue: str, *, task: str = PREFILL, ignore_result: bool = True
    ) -> None:
        headers, properties, (args, _, embedded) = messages.of_task(
            _ID, {}, _SHOWN, task=task, ignore_result=ignore_result
        )
        self._around = (args, embedded)
        message = {
            "body": _BODY,
            "content-encoding": CONTENT_ENCODING,
            "content-type": CONTENT_TYPE,
            "headers": headers | {SUBMITTED_HEADER: _SUBMITTED},
            "properties": properties
            | {
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": _PRIORITY,
                "body_encoding": "base64",
                "delivery_tag": _TAG,
            },
        }
        self._pieces = _PART.split(json.dumps(message))

    def build(
        self,
        request: Request,
        also: Mapping[str, Any] | None = None,
        origin: str = "",
        followers: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The message of the task that computes a request; ``also``: its other arguments;
        ``followers``: what Celery is to send when it has ended.
        """
        args, embedded = self._around
        if followers:
            embedded = {**embedded, **followers}
        fields = {**request.to_wire(), **(also or {})}
        # The envelope has it, by the clock that all nodes share.
        fields.pop("deadline", None)
        body = b64encode(msgpack.packb((args, fields, embedded)))
        filled = {
            _ID: as_json(request.request_id),
            _SHOWN: as_json(describe(request)),
            _SUBMITTED: repr(time.time()),
            _TAG: f'"{random.getrandbits(128):032x}"',
            _PRIORITY: str(request.priority),
            ANY_ORIGIN: as_json(origin),
            # Base64 needs no escapes: a long prompt does not pass through the JSON encoder.
            _BODY: f'"{body.decode()}"',
        }
        return "".join([filled.get(piece, piece) for piece in self._pieces]).encode()


def describe(request: Request) -> str:
    """What Flower shows of a request: sizes, never its text."""
    if request.prompt_token_ids is not None:
        prompt = f"{len(request.prompt_token_ids)} tokens"
    elif request.prompt is not None:
        prompt = f"{len(request.prompt)} characters"
    else:
        prompt = f"{len(request.messages or ())} messages"
    return f"{{prompt: {prompt}, max_tokens: {request.max_tokens}}}"
