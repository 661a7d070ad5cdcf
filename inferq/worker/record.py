"""A node's record: what others, and operators, can know of it."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from inferq.settings import Settings
from inferq.version import __version__
from inferq.worker.node import Node


def describe(settings: Settings, node: Node | None = None, **now: Any) -> str:
    """The record as JSON; ``now``: further numbers of this moment, once there is a node."""
    record: dict[str, Any] = {
        "role": settings.role,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "engine": settings.engine,
        "version": __version__,
    }
    if node is not None:
        record |= node.engine.capacity()._asdict()
        record |= node.stats.read()
        record |= {"role": node.role, **now}
    return json.dumps(record)
