"""Puts requests into a queue as Celery task messages."""

from __future__ import annotations

import threading

from celery import Celery
from kombu import Producer

from inferq.messages import Request
from inferq.messages.headers import SIZE_HEADER
from inferq.tasks.messages import CONTENT_ENCODING, CONTENT_TYPE, Messages


class Publisher:
    """Sends over one channel."""

    def __init__(self, app: Celery, origin: str) -> None:
        self._messages = Messages(app, origin)
        self._connection = app.connection_for_write()
        self._producer = Producer(self._connection.channel(), auto_declare=False)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connection."""
        self._connection.release()

    def publish(self, request: Request, queue: str, prompt_tokens: int | None = None) -> None:
        """Send one request; a known length of the prompt spares its node to find it out."""
        headers, properties, body = self._messages.build(request)
        if prompt_tokens is not None:
            headers[SIZE_HEADER] = [prompt_tokens, request.max_tokens]
        with self._lock:
            self._producer.publish(
                body,
                exchange="",
                routing_key=queue,
                content_type=CONTENT_TYPE,
                content_encoding=CONTENT_ENCODING,
                headers=headers,
                priority=request.priority,
                **properties,
            )
