"""Users of Redis' access lists on a test's server."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import redis

from inferq.cluster.rights import PARTS, Part, rights_of

PASSWORD = "pw-of-everybody"


class Users:
    """A user for each part, named so. ``topic``: whose they are; ``suffix``: for their names."""

    def __init__(self, admin: redis.Redis, topic: str, suffix: str = "", database: int = 0) -> None:
        self._admin = admin
        self._topic = topic
        self._suffix = suffix
        self._database = database
        for part in PARTS:
            self.allow(part)

    def allow(self, part: Part, *, without: Collection[str] = ()) -> None:
        """Give a user its rights, but for some."""
        rules = rights_of(part, self._topic, self._database).rules()
        assert set(without) <= set(rules)
        kept = [rule for rule in rules if rule not in without]
        self._command("SETUSER", part + self._suffix, "reset", "on", f">{PASSWORD}", *kept)

    def url(self, part: Part, port: int) -> str:
        """The address for a user."""
        name = part + self._suffix
        return f"redis://{name}:{PASSWORD}@127.0.0.1:{port}/{self._database}"

    def refusals(self) -> list[dict[str, Any]]:
        """What anybody was refused, and forget it."""
        log: Sequence[Any] = self._admin.acl_log()
        self._command("LOG", "RESET")
        return [
            {
                name: entry[name]
                for name in ("username", "reason", "context", "object", "client-info")
            }
            for entry in log
        ]

    def _command(self, *words: str) -> None:
        self._admin.execute_command("ACL", *words)  # type: ignore[no-untyped-call]
