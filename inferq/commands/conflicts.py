"""Settings that do not go together, though each is right."""

from __future__ import annotations

from collections.abc import Iterator

from inferq.commands.findings import Finding
from inferq.errors import SettingsError
from inferq.settings import Settings
from inferq.worker.roles import check_role

#: Redis takes no larger value unless its proto-max-bulk-len says otherwise, bytes.
MAX_REDIS_VALUE = 512 * 1024 * 1024


def conflicts(settings: Settings) -> Iterator[Finding]:
    """What is wrong or odd with these settings."""
    cluster = settings.cluster
    try:
        check_role(settings.scheduler_name, settings.role)
    except SettingsError as exc:
        yield _wrong(str(exc), "set role to mixed, or scheduler_name to splitwise")
    if cluster.lease_ttl_s * 1.5 > settings.scheduler_expire_period:
        yield _wrong(
            f"scheduler_expire_period={settings.scheduler_expire_period}: a node would be "
            f"forgotten before its lease of {cluster.lease_ttl_s} s is over",
            "raise scheduler_expire_period, its default is 3000",
        )
    if settings.scheduler_ttl < 2 * cluster.lease_ttl_s:
        yield _wrong(
            f"scheduler_ttl={settings.scheduler_ttl}: the requests of a lost node expire before "
            f"another one gets them (cluster.lease_ttl_s={cluster.lease_ttl_s})",
            "raise scheduler_ttl or lower cluster.lease_ttl_s",
        )
    if settings.limits.max_message_bytes > MAX_REDIS_VALUE:
        yield _wrong(
            f"limits.max_message_bytes={settings.limits.max_message_bytes}: Redis takes no value "
            f"above {MAX_REDIS_VALUE}",
            "lower it",
        )
    yield from _oddities(settings)


def _oddities(settings: Settings) -> Iterator[Finding]:
    cluster = settings.cluster
    if settings.scheduler_max_size > 0 and settings.scheduler_name != "local":
        yield _note(
            "scheduler_max_size bounds the local scheduler only",
            "set cluster.max_waiting to bound the queues of a topic",
        )
    if cluster.steal_after_s >= settings.scheduler_ttl:
        yield _note(
            f"cluster.steal_after_s={cluster.steal_after_s}: no request lives that long, so "
            "nothing is taken from a stuck node that has little load",
            "lower it below scheduler_ttl",
        )
    if cluster.origin_ttl_s < 2 * cluster.redis_timeout_s:
        yield _note(
            f"cluster.origin_ttl_s={cluster.origin_ttl_s}: outputs may be thrown away while their "
            f"producer still waits for Redis (cluster.redis_timeout_s={cluster.redis_timeout_s})",
            "raise it to at least twice cluster.redis_timeout_s",
        )
    if cluster.drain_timeout_s > settings.scheduler_ttl:
        yield _note(
            f"cluster.drain_timeout_s={cluster.drain_timeout_s}: no request lives that long",
            "lower it to scheduler_ttl at most",
        )


def _wrong(what: str, do: str) -> Finding:
    return Finding("settings", "wrong", what, do)


def _note(what: str, do: str) -> Finding:
    return Finding("settings", "note", what, do)
