"""Which roles a node may have."""

from __future__ import annotations

from typing import get_args

from inferq.errors import SettingsError
from inferq.settings import Role

ROLES: tuple[str, ...] = get_args(Role)


def check_role(scheduler: str, role: str) -> None:
    """Refuse a role that the scheduler has no use for.

    Raises:
        SettingsError: names what is allowed.
    """
    allowed = ROLES if scheduler == "splitwise" else ("mixed",)
    if role not in allowed:
        raise SettingsError(
            f"role={role!r}: nodes of the {scheduler} scheduler are {', '.join(allowed)}", ["role"]
        )
