"""What is to be said of the Redis server, from what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from inferq.commands.call import OLDEST, is_old
from inferq.commands.findings import Finding
from inferq.commands.printing import size

#: Of the memory that it may use, a server that uses more is nearly full.
NEARLY_FULL = 0.9


def too_old(info: Mapping[str, str]) -> bool:
    """Whether nothing else is worth looking at."""
    return is_old(info.get("redis_version", ""))


def server_findings(
    info: Mapping[str, str], snapshots: str | None, place: str
) -> Iterator[Finding]:
    """``info``: the answer of INFO; ``snapshots``: of CONFIG GET save, None if not known."""
    yield _version(info, place)
    if too_old(info):
        return
    yield from _kind(info)
    yield _persistence(info, snapshots)
    yield _eviction(info)
    yield from _memory(info)


def _version(info: Mapping[str, str], place: str) -> Finding:
    version = info.get("redis_version", "")
    valkey = info.get("valkey_version")
    name = f"Valkey {valkey}" if valkey else f"Redis {version or 'of unknown version'}"
    if is_old(version):
        oldest = ".".join(map(str, OLDEST))
        do = f"install Redis {oldest} or newer, or Valkey"
        return Finding("version", "wrong", f"{name} at {place} is too old", do)
    return Finding("version", "ok", f"{name} at {place}")


def _kind(info: Mapping[str, str]) -> Iterator[Finding]:
    if info.get("redis_mode") == "cluster":
        do = (
            "use one server, or a primary with replicas: scripts touch many keys of a topic at once"
        )
        yield Finding("kind", "wrong", "this is a Redis Cluster", do)
    if info.get("role") in ("slave", "replica"):
        yield Finding("kind", "wrong", "this is a replica", "point the settings at its primary")


def _persistence(info: Mapping[str, str], snapshots: str | None) -> Finding:
    failed = [
        name
        for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        if info.get(name, "ok") != "ok"
    ]
    if failed:
        what = f"writing to disk failed ({', '.join(failed)})"
        return Finding("persistence", "wrong", what, "look at Redis' log and at the disk")
    if info.get("aof_enabled") == "1":
        return Finding("persistence", "ok", "every change goes into the append-only file")
    do = "set appendonly yes"
    if snapshots:
        what = "snapshots only: a restart loses what came after the last one"
        return Finding("persistence", "note", what, do)
    if snapshots is None:
        what = "no append-only file; whether there are snapshots is not known"
        return Finding("persistence", "note", what, do)
    return Finding("persistence", "wrong", "none: a restart loses all that waits", do)


def _eviction(info: Mapping[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "")
    if policy in ("", "noeviction"):
        return Finding("eviction", "ok", policy or "its policy is not known")
    what = f"maxmemory-policy is {policy}: a full server throws queues away"
    do = "set maxmemory-policy noeviction"
    # Without a bound on the memory it is never full.
    return Finding("eviction", "wrong" if _number(info, "maxmemory") else "note", what, do)


def _memory(info: Mapping[str, str]) -> Iterator[Finding]:
    most, used = _number(info, "maxmemory"), _number(info, "used_memory")
    if most and used > NEARLY_FULL * most:
        what = f"{size(used)} of {size(most)} are used: soon nothing can be submitted"
        yield Finding("memory", "wrong", what, "raise maxmemory; look for producers that are gone")


def _number(info: Mapping[str, str], name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isdecimal() else 0
