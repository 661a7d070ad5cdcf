"""Outputs as server-sent events, and callers that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from inferq import AsyncHandle, Output, RequestEnded
from inferq.client import AsyncOutputs

from .failures import as_json


async def events(
    request: Request, handle: AsyncHandle, outputs: AsyncOutputs, first: Output
) -> AsyncIterator[str]:
    """``token`` events, and ``end`` or ``error``; after ``restart`` the answer begins anew."""
    async with outputs, cancelled_when_left(request, handle):
        for event in events_of(first):
            yield event
        try:
            async for output in outputs:
                for event in events_of(output):
                    yield event
        except RequestEnded as exc:
            yield event_of("error", as_json(exc))


def events_of(output: Output) -> list[str]:
    """What an output says; mostly one event."""
    said = []
    if output.restarted:  # its node was lost, and another one answers differently
        said.append(event_of("restart", {}))
    if output.token_ids or output.text:
        said.append(event_of("token", {"text": output.text, "token_ids": output.token_ids}))
    if output.finished:
        said.append(event_of("end", {"finish_reason": output.finish_reason}))
    return said


def event_of(kind: str, data: dict[str, Any]) -> str:
    """One event. JSON has no line breaks of its own."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


@asynccontextmanager
async def cancelled_when_left(request: Request, handle: AsyncHandle) -> AsyncIterator[None]:
    """Inside the block the request ends as soon as its caller is gone, also while it waits."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        handle.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
