"""Control commands of a node: ``celery -A inferq control inferq_drain -d gpu0@host``, and Flower's.

Importing this module makes them known to every worker of the process.
"""

from __future__ import annotations

import time
from typing import Any

from celery.worker.control import control_command, inspect_command

from inferq.errors import SettingsError
from inferq.worker.seat import Seat

Answer = dict[str, Any]


@control_command(signature="")  # type: ignore[untyped-decorator]
def inferq_drain(state: Any, **unknown: Any) -> Answer:
    """Take nothing more and run on: what was taken is finished, what waits goes elsewhere."""
    return _pause(state, unknown, True)


@control_command(signature="")  # type: ignore[untyped-decorator]
def inferq_resume(state: Any, **unknown: Any) -> Answer:
    """Take requests again after inferq_drain."""
    return _pause(state, unknown, False)


@control_command(args=[("role", str)], signature="<mixed|prefill|decode>")  # type: ignore[untyped-decorator]
def inferq_role(state: Any, role: Any = None, **unknown: Any) -> Answer:
    """Serve other phases from now on."""
    seat = _seat_of(state)
    if isinstance(seat, str):
        return {"error": seat}
    if unknown:
        return _unknown(unknown, "role")
    try:
        seat.change_role(role)
    except SettingsError as exc:
        return {"error": str(exc)}
    return {"ok": f"role is {role}"}


@inspect_command()  # type: ignore[untyped-decorator]
def inferq_clock(state: Any) -> Answer:
    """The time by this machine's clock, UNIX seconds."""
    del state
    return {"ok": time.time()}


def _pause(state: Any, unknown: Answer, paused: bool) -> Answer:
    seat = _seat_of(state)
    if isinstance(seat, str):
        return {"error": seat}
    if unknown:
        return _unknown(unknown, "none")
    seat.pause(paused)
    return {"ok": "draining" if paused else "ready"}


def _unknown(arguments: Answer, allowed: str) -> Answer:
    names = ", ".join(sorted(map(repr, arguments)))[:200]
    return {"error": f"arguments {names}: unknown; allowed: {allowed}"}


def _seat_of(state: Any) -> Seat | str:
    """The node's seat, or why there is none."""
    seat = getattr(state.app, "seat", None)
    if isinstance(seat, Seat):
        return seat
    return "this worker is no inferq node of a topic, or it has not joined yet"
