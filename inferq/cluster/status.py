"""Where a request is, and why it waits."""

from __future__ import annotations

import msgpack

from inferq.cluster.keys import quoted
from inferq.cluster.placing import read_snapshot
from inferq.cluster.topic import Topic
from inferq.messages import Status
from inferq.routing.placement import PROFILES, Ask, Phase
from inferq.routing.placement.profiles import explain, refusal

_STATES = {b"q": "queued", b"r": "running", b"c": "cancelled", b"d": "ended"}
_PHASES: tuple[Phase, Phase] = ("prefill", "decode")


def read_status(topic: Topic, request_id: str) -> Status:
    """What the record of a request says. Raises one of link.AWAY."""
    value = topic.link.call("GET", f"{topic.prefix}req:{quoted(request_id)}")
    if value is None:
        return Status("unknown")
    state, inc, *_, phase_number = msgpack.unpackb(value, raw=True)
    phase = _PHASES[phase_number - 1]
    node = inc.decode("utf-8", "surrogateescape").rpartition("#")[0]
    reason = _reason(topic, phase) if state == b"q" else ""
    return Status(_STATES[state], phase, node, reason)


def _reason(topic: Topic, phase: Phase) -> str:
    snapshot, _ = read_snapshot(topic)
    profile = PROFILES[phase]
    if any(not refusal(node, profile, snapshot.now_ms) for node in snapshot.nodes):
        return ""
    return explain(snapshot, profile, Ask(1, 0))
