"""Log lines that programs can read, that say whose they are, and that tell no secrets."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from inferq.settings import Settings
from inferq.worker.tracer import current_context

#: Loggers of Celery that write about each request at INFO.
_PER_REQUEST = ("celery.worker.strategy", "celery.worker.request", "celery.app.trace")
#: Settings that name a file with a secret.
_SECRET_FILES = ("password_file", "api_key_file")
#: Shorter secrets are not looked for: half of all lines would contain them.
MIN_SECRET = 4
#: Longer messages are cut, characters.
MAX_MESSAGE = 16_384

_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@'\"]*@")
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@#+%~-]+")


def configure(settings: Settings, node: str) -> None:
    """Have this worker's log lines say node and request, in the format of the settings.

    Call it after Celery has set up its handlers. One that an application has put there by
    Celery's ``setup_logging`` signal has a formatter of its own, which stays as it is inside.
    """
    belongs = Belongs(node, settings.scheduler_topic)
    secrets = secrets_of(settings)
    for name in (None, "celery.task"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(belongs)
            handler.setFormatter(_formatter(settings, handler.formatter, secrets))
    root = logging.getLogger()
    if not settings.monitoring.log_requests and not root.isEnabledFor(logging.DEBUG):
        for name in _PER_REQUEST:
            logging.getLogger(name).setLevel(logging.WARNING)


class Belongs(logging.Filter):
    """Gives each record ``node``, ``topic`` and ``request_id``; empty when it is of no request."""

    def __init__(self, node: str, topic: str) -> None:
        super().__init__()
        self._node, self._topic = node, topic

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything through."""
        record.node, record.topic = self._node, self._topic
        if not getattr(record, "request_id", ""):
            record.request_id = _request_id(record)
        return True


def _request_id(record: logging.LogRecord) -> str:
    context = current_context.get()
    if context is not None:
        return str(context.id or "")
    # Celery's own lines about a task, from other threads.
    data = getattr(record, "data", None)
    return str(data.get("id") or "") if isinstance(data, dict) else ""


class Redacting(logging.Formatter):
    """Another formatter's text, without secrets, with the request's id at its end."""

    def __init__(self, inner: logging.Formatter, secrets: Sequence[str]) -> None:
        super().__init__()
        self._inner = inner
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """One line, or some with a traceback."""
        text = self.redacted(self._inner.format(record))
        request_id = getattr(record, "request_id", "")
        if not request_id or request_id in text:
            return text
        first, separator, rest = text.partition("\n")
        return f"{first} request_id={_value(request_id)}{separator}{rest}"

    def redacted(self, text: str) -> str:
        """The text with three stars for each secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _CREDENTIALS.sub(r"\1***@", text) if "://" in text else text


class Structured(Redacting):
    """Fields: time (UTC), level, logger, node, topic, request_id, message, error."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__(logging.Formatter(), secrets)

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in it."""
        return self.joined({k: self.redacted(v) for k, v in self._fields(record) if v})

    def joined(self, fields: dict[str, str]) -> str:
        """``key=value``, quoted as in JSON where it is more than a word."""
        return " ".join(f"{name}={_value(value)}" for name, value in fields.items())

    def _fields(self, record: logging.LogRecord) -> Iterable[tuple[str, str]]:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        yield "time", f"{moment}.{int(record.msecs):03d}Z"
        yield "level", record.levelname.lower()
        yield "logger", record.name
        for name in ("node", "topic", "request_id"):
            yield name, str(getattr(record, name, ""))
        yield "message", record.getMessage()[:MAX_MESSAGE]
        if record.exc_info and record.exc_info[0] is not None:
            yield "error", self._inner.formatException(record.exc_info)[-MAX_MESSAGE:]


class JsonLines(Structured):
    """The same fields, an object a line."""

    def joined(self, fields: dict[str, str]) -> str:
        """In ASCII: what no encoding can write is written, too."""
        return json.dumps(fields)


def secrets_of(settings: Settings) -> list[str]:
    """What must not be shown: settings that do not show in a ``repr``, and what is in files.

    Longest first.
    """
    found = {secret for secret in _hidden(settings) if len(secret) >= MIN_SECRET}
    return sorted(found, key=len, reverse=True)


def _hidden(group: Any) -> Iterable[str]:
    for name, field in type(group).model_fields.items():
        value = getattr(group, name)
        if hasattr(type(value), "model_fields"):
            yield from _hidden(value)
        elif not isinstance(value, str):
            continue
        elif name in _SECRET_FILES:
            with suppress(OSError, ValueError):
                yield Path(value).read_text().strip()
        elif not field.repr:
            yield value
            yield from _password_in(value)


def _password_in(url: str) -> Iterable[str]:
    with suppress(ValueError):
        password = urlsplit(url).password or ""
        yield from (password, unquote(password))


def _formatter(
    settings: Settings, present: logging.Formatter | None, secrets: Sequence[str]
) -> logging.Formatter:
    if settings.monitoring.log_format == "json":
        return JsonLines(secrets)
    if settings.monitoring.log_format == "logfmt":
        return Structured(secrets)
    return Redacting(present or logging.Formatter(), secrets)


def _value(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
