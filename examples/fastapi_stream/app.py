"""The application: ``uvicorn --app-dir examples fastapi_stream.app:app``.

Where the nodes are is said by settings: ``INFERQ_SCHEDULER_NAME``, ``INFERQ_SCHEDULER_URL``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from inferq import AsyncClient, AsyncHandle, Counts, SchedulerUnavailable, Settings, UnknownRequest

from .events import cancelled_when_left, events
from .failures import add_handlers


class Question(BaseModel):
    """What this service lets its callers choose. Priority and deadline are its own to choose."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[str, Field(min_length=1, max_length=200_000)]
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for all requests; it cancels what is left when the service stops."""
    async with AsyncClient(Settings()) as client:
        app.state.client = client
        yield


app = FastAPI(title="fastapi_stream", lifespan=lifespan)
add_handlers(app)


@app.post("/generate")
async def generate(question: Question, request: Request) -> StreamingResponse:
    """Stream an answer as server-sent events.

    The head of the response is sent with the first token: what fails before that has a status of
    its own, and what fails later is an event.
    """
    handle = await submit(request.app.state.client, question)
    outputs = handle.stream()
    async with cancelled_when_left(request, handle):
        first = await anext(outputs)
    return StreamingResponse(
        events(request, handle, outputs, first),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Request-Id": handle.request_id},
    )


async def submit(client: AsyncClient, question: Question) -> AsyncHandle:
    """Enqueue it, or leave nothing behind."""
    name = f"web-{uuid.uuid4().hex}"
    try:
        return await client.submit(request_id=name, **question.model_dump())
    except SchedulerUnavailable:  # it may be in the queue nevertheless, and nobody will read it
        with suppress(UnknownRequest):
            client.handle(name).cancel()
        raise


@app.get("/health")
async def health(request: Request) -> dict[str, int]:
    """Whether the scheduler answers, and a node that is there could take a request at some time."""
    client: AsyncClient = request.app.state.client
    counts: Counts = await asyncio.to_thread(client.counts)
    if not counts.total_slots:
        raise SchedulerUnavailable("no node is there")
    return {
        "waiting": counts.waiting,
        "running": counts.running,
        "free_slots": counts.free_slots,
    }
