"""The settings of metrics and logs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inferq.settings.engine import Options

LogFormat = Literal["text", "logfmt", "json"]


class MonitoringSettings(Options):
    """What a worker process tells of itself."""

    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of the worker's metrics for Prometheus; 0: none"
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address that they are served on, to anybody who can reach it",
    )
    log_format: LogFormat = Field(
        "text", description="Log lines: text (Celery's), logfmt (key=value) or json"
    )
    log_requests: bool = Field(
        False, description="Log Celery's lines about each request at INFO, such as `received`"
    )
