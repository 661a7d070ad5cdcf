"""inferq: a scheduler for LLM inference that runs on a message queue."""

from inferq.client import AsyncClient, AsyncHandle, Client, Handle
from inferq.errors import (
    ClientClosed,
    DuplicateRequest,
    EngineError,
    EngineStartError,
    EngineStepError,
    InferqError,
    InvalidRequest,
    KvLost,
    QueueFull,
    RequestCancelled,
    RequestEnded,
    RequestExpired,
    RequestFailed,
    RequestTooLarge,
    SchedulerUnavailable,
    SettingsError,
    UnknownRequest,
)
from inferq.messages import Crossing, FinishReason, Handoff, Output, Request, Status
from inferq.results.reply import Result, ResultTimings
from inferq.schedulers.base import Counts
from inferq.settings import Settings
from inferq.version import __version__

__all__ = [
    "AsyncClient",
    "AsyncHandle",
    "Client",
    "ClientClosed",
    "Counts",
    "Crossing",
    "DuplicateRequest",
    "EngineError",
    "EngineStartError",
    "EngineStepError",
    "FinishReason",
    "Handle",
    "Handoff",
    "InferqError",
    "InvalidRequest",
    "KvLost",
    "Output",
    "QueueFull",
    "Request",
    "RequestCancelled",
    "RequestEnded",
    "RequestExpired",
    "RequestFailed",
    "RequestTooLarge",
    "Result",
    "ResultTimings",
    "SchedulerUnavailable",
    "Settings",
    "SettingsError",
    "Status",
    "UnknownRequest",
    "__version__",
]
