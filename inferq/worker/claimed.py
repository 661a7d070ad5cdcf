"""Reads a claimed message, which anybody may have written, into one that Celery can take."""

from __future__ import annotations

import binascii
import json
import re
import time
from collections.abc import Container
from typing import Any

from inferq.cluster.topic import Taken
from inferq.messages.headers import (
    ATTEMPT_HEADER,
    DEADLINE_HEADER,
    SIZE_HEADER,
    SUBMITTED_HEADER,
)
from inferq.transport.deliveries import tag_of_claim
from inferq.transport.gate import RawMessage
from inferq.worker.intake import ACCEPT

_REQUEST_ID = re.compile(r"[!-~]{1,200}")


class Malformed(Exception):
    """The message cannot be run, and why."""


def read_claimed(taken: Taken, now_ms: int, tasks: Container[str]) -> RawMessage:
    """The message with a delivery tag, and with what its envelope says in headers.

    Times of Redis' clock become times of this machine's: clocks may differ.

    Raises:
        Malformed: with the reason.
    """
    message = _object(taken.raw)
    headers = _dict(message, "headers")
    request_id = _request_id(headers, taken)
    name = headers.get("task")
    if not isinstance(name, str) or name not in tasks:
        raise Malformed(f"headers.task: {name!r:.100} is no task of this queue")
    given = _dict(message, "properties")
    now = time.time()
    headers[ATTEMPT_HEADER] = taken.attempt
    headers[SUBMITTED_HEADER] = now - max(0, now_ms - taken.submitted_ms) / 1000
    headers[DEADLINE_HEADER] = now + (taken.deadline_ms - now_ms) / 1000
    headers[SIZE_HEADER] = [taken.prompt_tokens, taken.max_tokens]
    return {
        "body": _body(message, given),
        "content-type": _content_type(message),
        "content-encoding": _string(message, "content-encoding", "utf-8"),
        "headers": headers,
        "properties": {
            "correlation_id": request_id,
            "reply_to": _string(given, "reply_to", ""),
            "delivery_mode": 2,
            "delivery_tag": tag_of_claim(taken.claim),
            "delivery_info": {
                "exchange": "",
                "routing_key": taken.queue,
                "redelivered": taken.again,
            },
        },
    }


def _object(raw: bytes) -> dict[str, Any]:
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"no JSON: {type(exc).__name__}") from None
    if not isinstance(message, dict):
        raise Malformed("no JSON object")
    return message


def _request_id(headers: dict[str, Any], taken: Taken) -> str:
    request_id = headers.get("id")
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise Malformed("headers.id: 1 to 200 printable ASCII characters without spaces")
    if taken.request_id not in ("", request_id):
        raise Malformed("headers.id: is not the one of the envelope")
    return request_id


def _content_type(message: dict[str, Any]) -> str:
    content_type = message.get("content-type")
    if not isinstance(content_type, str) or content_type not in ACCEPT:
        raise Malformed(f"content-type: {content_type!r:.100}; allowed are {', '.join(ACCEPT)}")
    return content_type


def _body(message: dict[str, Any], properties: dict[str, Any]) -> bytes:
    body = _string(message, "body", "")
    encoding = properties.get("body_encoding")
    if encoding is None:
        return body.encode("utf-8", "surrogatepass")
    if encoding != "base64":
        raise Malformed("properties.body_encoding: base64 or none")
    try:
        return binascii.a2b_base64(body, strict_mode=True)
    except ValueError:
        raise Malformed("body: no base64") from None


def _dict(message: dict[str, Any], name: str) -> dict[str, Any]:
    value = message.get(name)
    if not isinstance(value, dict):
        raise Malformed(f"{name}: no object")
    return value


def _string(message: dict[str, Any], name: str, default: str) -> str:
    value = message.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise Malformed(f"{name}: no string")
    return value
