"""What travels: Request, Output, Handoff."""

from inferq.messages.fields import PRIORITIES
from inferq.messages.handoff import Handoff
from inferq.messages.output import (
    Crossing,
    ErrorInfo,
    FinishReason,
    Output,
    Timings,
    ended_error,
    error_output,
)
from inferq.messages.request import ChatMessage, Request
from inferq.messages.status import Status

__all__ = [
    "PRIORITIES",
    "ChatMessage",
    "Crossing",
    "ErrorInfo",
    "FinishReason",
    "Handoff",
    "Output",
    "Request",
    "Status",
    "Timings",
    "ended_error",
    "error_output",
]
