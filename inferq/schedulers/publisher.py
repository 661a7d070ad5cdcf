"""Puts requests into a queue as Celery task messages."""

from __future__ import annotations

import threading
import time

import msgpack
from celery import Celery
from kombu import Producer

from inferq.messages import Request
from inferq.tasks import PREFILL
from inferq.tasks.run import SUBMITTED_HEADER
from inferq.worker.intake import SIZE_HEADER


class Publisher:
    """Builds messages by Celery's own protocol code and sends them over one channel.

    ``Celery.send_task`` would do the same with a pool of connections, a router and a textual
    form of every argument, which costs several times as much. The deadline travels in the
    request, where the task reads it: Celery's ``expires`` would have every message parse a date.
    """

    def __init__(self, app: Celery, origin: str) -> None:
        self._as_task = app.amqp.as_task_v2
        self._origin = origin
        self._connection = app.connection_for_write()
        self._producer = Producer(self._connection.channel(), auto_declare=False)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connection."""
        self._connection.release()

    def publish(self, request: Request, queue: str, prompt_tokens: int | None = None) -> None:
        """Send one request; a known length of the prompt spares its node to find it out."""
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
        if prompt_tokens is not None:
            headers[SIZE_HEADER] = [prompt_tokens, request.max_tokens]
        with self._lock:
            self._producer.publish(
                msgpack.packb(body),
                exchange="",
                routing_key=queue,
                content_type="application/x-msgpack",
                content_encoding="binary",
                headers=headers,
                priority=request.priority,
                **properties,
            )


def _describe(request: Request) -> str:
    """What Flower shows of a request: sizes, never its text."""
    if request.prompt_token_ids is not None:
        prompt = f"{len(request.prompt_token_ids)} tokens"
    elif request.prompt is not None:
        prompt = f"{len(request.prompt)} characters"
    else:
        prompt = f"{len(request.messages or ())} messages"
    return f"{{prompt: {prompt}, max_tokens: {request.max_tokens}}}"
