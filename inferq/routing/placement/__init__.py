"""Placement: which node gets a request. Filter, score, pick, over a snapshot of the nodes."""

from __future__ import annotations

from importlib import import_module
from random import Random

from inferq.errors import SettingsError
from inferq.routing.placement.nodes import Ask, LoadName, NodeInfo, Snapshot
from inferq.routing.placement.placer import Placer
from inferq.routing.placement.policy import Filter, Hints, Policy, Scored, Scorer, Weighted
from inferq.routing.placement.pool import Pool
from inferq.routing.placement.profiles import DECODE, PREFILL, PROFILES, Phase, Profile
from inferq.routing.placement.shortlist import MOST_CANDIDATES, Candidate, Shortlist, choose
from inferq.settings.placement import POLICIES, PlacementSettings

__all__ = [
    "DECODE",
    "MOST_CANDIDATES",
    "PREFILL",
    "PROFILES",
    "Ask",
    "Candidate",
    "Filter",
    "Hints",
    "LoadName",
    "NodeInfo",
    "Phase",
    "Placer",
    "Policy",
    "Pool",
    "Profile",
    "Scored",
    "Scorer",
    "Shortlist",
    "Snapshot",
    "Weighted",
    "choose",
    "create_placer",
    "create_policy",
]

_HERE = "inferq.routing.placement.policies"
_FACTORIES = {
    "blur": f"{_HERE}.blur:Blur",
    "least_time": f"{_HERE}.least_time:LeastTime",
    "power_of_two": f"{_HERE}.chance:PowerOfTwo",
    "pull": f"{_HERE}.pull:Pull",
    "random": f"{_HERE}.chance:RandomNode",
    "round_robin": f"{_HERE}.round_robin:RoundRobin",
}


def create_policy(settings: PlacementSettings, phase: Phase, random: Random) -> Policy:
    """The policy that the settings name for this phase.

    Besides the built-in names, ``package.module:factory`` names any callable that takes the
    profile and the source of chance and returns a Policy.

    Raises:
        SettingsError: there is no such policy, or it cannot be made.
    """
    setting = f"placement.{phase}_policy"
    name = settings.prefill_policy if phase == "prefill" else settings.decode_policy
    module_name, _, attribute = _FACTORIES.get(name, name).partition(":")
    try:
        policy = getattr(import_module(module_name), attribute)(PROFILES[phase], random)
    except (ImportError, AttributeError, TypeError, ValueError) as exc:
        raise SettingsError(
            f"{setting}={name!r}: {exc}; allowed are {', '.join(POLICIES)} "
            "and package.module:factory",
            [setting],
        ) from exc
    if not isinstance(policy, Policy):
        made = type(policy).__name__
        raise SettingsError(f"{setting}={name!r}: made a {made}, not a Policy", [setting])
    return policy


def create_placer(settings: PlacementSettings, phase: Phase, random: Random) -> Placer:
    """Places requests by the policy that the settings name for this phase.

    Raises:
        SettingsError: see ``create_policy``.
    """
    return Placer(create_policy(settings, phase, random))
