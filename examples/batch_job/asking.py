"""One line: submitted, also when Redis is away or an earlier run has left it behind."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from inferq import (
    AsyncClient,
    AsyncHandle,
    DuplicateRequest,
    InferqError,
    InvalidRequest,
    QueueFull,
    RequestEnded,
    RequestFailed,
    Result,
    SchedulerUnavailable,
    UnknownRequest,
)

from .lines import Line

#: What is no fault of the line is tried again for this long, seconds.
PATIENCE_S = 600.0
PAUSE_S = 0.2
#: What keeps the job waiting is said this often, seconds.
SAY_EVERY_S = 10.0


def request_id_of(job: str, line: Line) -> str:
    """The same in each run of a job, another one in other jobs."""
    return f"batch-{hashlib.sha256(f'{job} {line.key}'.encode(errors='replace')).hexdigest()[:32]}"


class Asker:
    """Asks for the lines of one job. ``say`` is told what keeps it waiting."""

    def __init__(self, client: AsyncClient, job: str, say: Callable[[str], None]) -> None:
        self._client = client
        self._job = job
        self._say = say
        self._said_at = -math.inf

    async def ask(self, line: Line) -> dict[str, Any]:
        """The answer to a line, or what is wrong with it, as it is written down.

        Raises:
            SchedulerUnavailable, QueueFull, DuplicateRequest: still so after ``PATIENCE_S``.
        """
        record = {"id": line.id, "line": line.number}
        if line.error:
            return {**record, "error": {"code": "invalid_line", "message": line.error}}
        try:
            handle = await self._submit(
                {**line.fields, "request_id": request_id_of(self._job, line)}
            )
            result = await handle.result()
        except DuplicateRequest:
            raise
        except InvalidRequest as exc:
            error = {"code": exc.code, "field": exc.field, "message": str(exc)}
            return {**record, "error": error}
        except RequestEnded as exc:
            code = exc.error_code if isinstance(exc, RequestFailed) else exc.code
            return {**record, "error": {"code": code, "message": exc.message}}
        return {**record, **as_record(result)}

    async def _submit(self, fields: Mapping[str, Any]) -> AsyncHandle:
        gives_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await self._submit_once(fields)
            except (DuplicateRequest, QueueFull, SchedulerUnavailable) as exc:
                # The id remains: if it has come through nevertheless, it does not run twice.
                if time.monotonic() >= gives_up_at:
                    raise
                self._tell(exc)
            await asyncio.sleep(PAUSE_S)

    async def _submit_once(self, fields: Mapping[str, Any]) -> AsyncHandle:
        try:
            [handle] = await self._client.submit_many([fields])
        except DuplicateRequest:
            # A run that was killed has sent it, and its answer would go to that run: end it.
            # There is no other live run, for the file of answers is locked.
            with suppress(UnknownRequest):
                await self._client.cancel(fields["request_id"])
            raise
        return handle

    def _tell(self, error: InferqError) -> None:
        if time.monotonic() >= self._said_at + SAY_EVERY_S:
            self._said_at = time.monotonic()
            self._say(f"{error}: trying again")


def as_record(result: Result) -> dict[str, Any]:
    """What is written down of an answer."""
    return {
        "text": result.text,
        "token_ids": result.token_ids,
        "finish_reason": result.finish_reason,
        "node": result.node,
        "seconds": round(result.timings.e2e_s, 3),
    }
