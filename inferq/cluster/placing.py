"""Placement over the shared state of a topic: snapshots of its nodes, targets for its scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from inferq.cluster.answers import pairs
from inferq.cluster.pipeline import call_all
from inferq.cluster.rows import Hop, Item, Placed, Target
from inferq.cluster.seen import own_words
from inferq.cluster.topic import Topic
from inferq.routing.placement import (
    Ask,
    NodeInfo,
    Phase,
    Placer,
    Shortlist,
    Snapshot,
    create_placer,
)
from inferq.settings import Settings

#: A snapshot that is older is not used any more, seconds. A younger one may be used once more
#: before it is read anew: the final choice is made with the loads of the moment anyway.
MOST_AGE_S = 5.0
#: What nodes say of themselves (host, rates) is read this often, seconds.
RECORDS_S = 2.0


class Placing:
    """Chooses candidates for one process. Safe from many threads.

    ``place`` before a script is called, ``learn`` after it.
    """

    def __init__(self, settings: Settings, phases: Sequence[Phase], random: Random | None = None):
        random = random or Random()
        self._refresh_s = settings.placement.refresh_s
        self._placers: dict[Phase, Placer] = {
            phase: create_placer(settings.placement, phase, random)
            for phase in phases
            if _policy(settings, phase) != "pull"
        }
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._records: dict[str, Mapping[str, Any]] = {}
        self._records_at = float("-inf")

    def place_items(self, topic: Topic, items: Sequence[Item]) -> Sequence[Item]:
        """Requests with their candidates. Raises one of link.AWAY."""
        if "prefill" not in self._placers:
            return items
        with self._lock:
            self._refresh(topic, MOST_AGE_S)
            return [
                item._replace(target=self._target("prefill", item.prompt_tokens, item.max_tokens))
                for item in items
            ]

    def place_hop(self, topic: Topic, hop: Hop) -> Hop:
        """A claim that is passed on, with its candidates. Raises one of link.AWAY."""
        phase: Phase = "decode" if hop.base == topic.decode_base else "prefill"
        if phase not in self._placers:
            return hop
        with self._lock:
            self._refresh(topic, MOST_AGE_S)
            return hop._replace(target=self._target(phase, hop.prompt_tokens, hop.max_tokens))

    def learn(self, topic: Topic, phase: Phase, placed: Iterable[Placed | None]) -> None:
        """Take note of where requests went, and read a new snapshot when it is time to."""
        placer = self._placers.get(phase)
        if placer is None:
            return
        with self._lock:
            for row in placed:
                if row is not None and row.node:
                    placer.placed(row.node, row.load)
            self._refresh(topic, self._refresh_s)

    def _target(self, phase: Phase, prompt_tokens: int, max_tokens: int) -> Target | None:
        return target_of(self._placers[phase].place(Ask(prompt_tokens, max_tokens)))

    def _refresh(self, topic: Topic, most_age_s: float) -> None:
        now = time.monotonic()
        if now - self._read_at < most_age_s:
            return
        for placer in self._placers.values():
            placer.reading()
        with_records = now - self._records_at >= RECORDS_S
        snapshot, records = read_snapshot(topic, None if with_records else self._records)
        self._read_at = now
        if with_records:
            self._records, self._records_at = records, now
        for placer in self._placers.values():
            placer.refresh(snapshot)


def target_of(shortlist: Shortlist) -> Target | None:
    """A shortlist as scripts read it; None: the shared queue."""
    if not shortlist.candidates:
        return None
    return Target(
        shortlist.names,
        tuple(float(candidate.weight) for candidate in shortlist.candidates),
        tuple(float(candidate.bias) for candidate in shortlist.candidates),
        float(shortlist.slack),
        shortlist.among,
        "requests" if shortlist.load == "decode_requests" else "tokens",
    )


def read_snapshot(
    topic: Topic, records: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Snapshot, dict[str, Mapping[str, Any]]]:
    """The nodes of a topic now. ``records``: what they say of themselves, if known already.

    Raises one of link.AWAY.
    """
    bases = (topic.base, topic.decode_base)
    prefix = topic.prefix
    commands: list[tuple[Any, ...]] = [
        ("TIME",),
        ("HGETALL", f"{prefix}incs"),
        ("ZRANGE", f"{prefix}leases", 0, -1, "WITHSCORES"),
    ]
    for base in bases:
        commands.append(("ZRANGE", f"{prefix}limits:{base}", 0, -1, "WITHSCORES"))
        commands.append(("HGETALL", f"{prefix}work:{base}"))
    if records is None:
        commands.append(("HGETALL", f"{prefix}nodes"))
    (seconds, micros), *flat = call_all(topic.link, commands)
    incs, leases, *phases = (pairs(part) for part in flat)
    if records is None:
        said: dict[str, Mapping[str, Any]] = {n: own_words(r) for n, r in phases.pop().items()}
    else:
        said = dict(records)
    limits, work = phases[0::2], phases[1::2]
    nodes = [
        _node(name, incs.get(name, ""), leases, limits, work, said.get(name, {}))
        for name in {**limits[0], **limits[1]}
    ]
    return Snapshot(tuple(nodes), int(seconds) * 1000 + int(micros) / 1000), said


def _node(
    name: str,
    inc: str,
    leases: Mapping[str, str],
    limits: Sequence[Mapping[str, str]],
    work: Sequence[Mapping[str, str]],
    said: Mapping[str, Any],
) -> NodeInfo:
    serves = [name in limit for limit in limits]
    role = "mixed" if all(serves) else "prefill" if serves[0] else "decode"
    longest = max(float(limit[name]) for limit in limits if name in limit)
    return NodeInfo(
        name=name,
        role=role,
        ready=True,
        lease_until_ms=float(leases.get(inc, 0)),
        host=said.get("host", ""),
        longest=int(longest),
        prefill_tokens=max(0, int(work[0].get(name, 0))),
        decode_requests=max(0, int(work[1].get(f"#{name}", 0))),
        decode_tokens=max(0, int(work[1].get(name, 0))),
        total_blocks=said.get("total_blocks", 0),
        free_blocks=said.get("free_blocks", 0),
        block_size=said.get("block_size", 1),
        prefill_tokens_per_s=said.get("prefill_tokens_per_s", 0.0),
        decode_tokens_per_s=said.get("tokens_per_s", 0.0),
    )


def _policy(settings: Settings, phase: Phase) -> str:
    placement = settings.placement
    return placement.prefill_policy if phase == "prefill" else placement.decode_policy
