"""What travels: Request, Output, Handoff."""

from inferq.messages.fields import PRIORITIES
from inferq.messages.handoff import Handoff
from inferq.messages.output import (
    ErrorInfo,
    FinishReason,
    Output,
    Timings,
    ended_error,
    error_output,
)
from inferq.messages.request import ChatMessage, Request

__all__ = [
    "PRIORITIES",
    "ChatMessage",
    "ErrorInfo",
    "FinishReason",
    "Handoff",
    "Output",
    "Request",
    "Timings",
    "ended_error",
    "error_output",
]
