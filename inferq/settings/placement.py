"""The settings of placement: which policy chooses the node of a request."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from inferq.settings.engine import Options

POLICIES = ("blur", "least_time", "power_of_two", "pull", "random", "round_robin")
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _known(name: str) -> str:
    if name in POLICIES or _OWN.fullmatch(name):
        return name
    raise ValueError(
        f"no such policy; allowed are {', '.join(POLICIES)} and package.module:factory"
    )


PolicyName = Annotated[str, AfterValidator(_known)]


class PlacementSettings(Options):
    """How nodes are chosen for requests (splitwise)."""

    prefill_policy: PolicyName = Field(
        "pull", description=f"{', '.join(POLICIES)}, or `package.module:factory`"
    )
    decode_policy: PolicyName = Field(
        "least_time", description="As for prefill; chosen when the prefill has ended"
    )
    refresh_s: float = Field(
        0.2,
        ge=0.01,
        le=60,
        description="Who places reads the loads of all nodes this often, seconds",
    )
