from __future__ import annotations

import logging
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from inferq import SettingsError
from inferq.routing.placement import (
    DECODE,
    Ask,
    NodeInfo,
    Phase,
    Placer,
    Scored,
    Shortlist,
    Weighted,
    choose,
    create_placer,
    create_policy,
)
from inferq.settings import PlacementSettings, Settings
from inferq.settings.placement import POLICIES
from tests.routing.placement.support import ASK, node, snapshot

EXAMPLES = str(Path(__file__).parents[3] / "examples")


def same_host(node: NodeInfo, ask: Ask) -> float:
    return float(node.host == ask.host)


def room(node: NodeInfo, ask: Ask) -> float:
    return node.free_blocks / node.total_blocks


def scored(*scorers: Weighted, tokens_per_point: float = 1000) -> Placer:
    """Two nodes: a is near, b has room."""
    policy = Scored(DECODE, Random(1), scorers=scorers, tokens_per_point=tokens_per_point)
    made = Placer(policy)
    made.refresh(
        snapshot(
            node("a", host="near", total_blocks=100, free_blocks=20),
            node("b", host="far", total_blocks=100, free_blocks=80),
        )
    )
    return made


@pytest.mark.parametrize(
    ("scorers", "loads", "chosen"),
    [
        ([Weighted(same_host)], (0, 0), "a"),
        ([Weighted(room)], (0, 0), "b"),
        # 1.2 / 2 against 0.8 / 2; (1 + 4 * 0.2) / 5 against 4 * 0.8 / 5.
        ([Weighted(same_host), Weighted(room)], (0, 0), "a"),
        ([Weighted(same_host), Weighted(room, 4)], (0, 0), "b"),
        # A point is worth 1,000 tokens of load.
        ([Weighted(same_host)], (999, 0), "a"),
        ([Weighted(same_host)], (1001, 0), "b"),
        ([Weighted(same_host, 2)], (1001, 0), "b"),
    ],
)
def test_scores_and_loads_choose_together(
    scorers: list[Weighted], loads: tuple[int, int], chosen: str
) -> None:
    shortlist = scored(*scorers).place(Ask(10, 10, host="near"))
    assert choose(shortlist, dict(zip("ab", loads, strict=True)), lambda _: True) == chosen


def test_a_scorer_sees_the_digests_of_the_prompt() -> None:
    cached = {"b": {b"1", b"2"}, "a": {b"1"}}

    def share_cached(node: NodeInfo, ask: Ask) -> float:
        return sum(p in cached[node.name] for p in ask.prefixes) / len(ask.prefixes)

    shortlist = scored(Weighted(share_cached)).place(Ask(10, 10, prefixes=(b"1", b"2", b"3")))
    assert shortlist.names == ("b", "a")


def crowd(**options: Any) -> Placer:
    """A thousand nodes; one of them is near."""
    policy = Scored(
        DECODE, Random(1), scorers=[Weighted(same_host)], tokens_per_point=1000, **options
    )
    made = Placer(policy)
    hosts = ["near" if i == 700 else "far" for i in range(1000)]
    made.refresh(snapshot(*(node(f"n{i}", host=host) for i, host in enumerate(hosts))))
    return made


def test_of_a_thousand_nodes_those_hinted_at_are_always_looked_at() -> None:
    ask = Ask(10, 10, host="near")
    hinted = crowd(hints=lambda ask: ["gone", "n700"])
    assert {hinted.place(ask).names[0] for _ in range(20)} == {"n700"}
    blind = crowd()
    assert len({blind.place(ask).names[0] for _ in range(20)}) > 1


def test_of_a_thousand_nodes_all_are_looked_at_when_filters_leave_few() -> None:
    only_near = crowd(filters=[lambda node, ask: "" if node.host == "near" else "far"])
    assert {only_near.place(ASK).names for _ in range(20)} == {("n700",)}


def test_a_score_out_of_range_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        shortlist = scored(Weighted(lambda node, ask: 7.0)).place(ASK)
    assert shortlist == Shortlist(load="decode_tokens")
    assert "allowed is 0 to 1" in caplog.text


def test_when_filters_leave_nobody_they_say_why() -> None:
    policy = Scored(
        DECODE,
        Random(1),
        scorers=[Weighted(same_host)],
        tokens_per_point=1,
        filters=[lambda node, ask: f"{node.name} is being moved"],
    )
    made = Placer(policy)
    made.refresh(snapshot(node("b"), node("a")))
    reason = made.place(ASK).reason
    assert reason == "no decode node may take it: a is being moved; b is being moved"


@pytest.mark.parametrize(("weight", "tokens_per_point"), [(0, 1), (1, 0), (-1, 1)])
def test_weights_that_make_no_sense_are_refused(weight: float, tokens_per_point: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        scored(Weighted(same_host, weight), tokens_per_point=tokens_per_point)


@pytest.mark.parametrize("setting", ["prefill_policy", "decode_policy"])
@pytest.mark.parametrize("name", ["pigeon", "", "a.b", "os:", "1:x", 7])
def test_a_wrong_name_is_answered_with_the_right_ones(setting: str, name: object) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(placement={setting: name})
    assert caught.value.names == (f"placement.{setting}",)
    assert name == 7 or "blur, least_time, power_of_two, pull, random" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["no_such_module:thing", "json:no_such_thing", "random:Random", "builtins:zip"]
)
def test_a_name_that_leads_nowhere_is_answered_with_the_setting(name: str) -> None:
    settings = PlacementSettings(decode_policy=name)
    with pytest.raises(SettingsError, match=r"placement\.decode_policy='") as caught:
        create_policy(settings, "decode", Random(1))
    assert caught.value.names == ("placement.decode_policy",)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_every_policy_can_be_named(name: str, phase: Phase) -> None:
    settings = Settings(placement={f"{phase}_policy": name}).placement
    assert create_policy(settings, phase, Random(1)).profile.phase == phase


def test_policies_of_ones_own_are_named_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("INFERQ_PLACEMENT__DECODE_POLICY", "placement_policy:near_the_cache")
    monkeypatch.setenv("INFERQ_PLACEMENT__PREFILL_POLICY", "placement_policy:SmallFirst")
    settings = Settings().placement
    nodes = snapshot(
        node("far", host="b", free_blocks=9),
        node("near", host="a", free_blocks=9, decode_tokens=15_000),
        node("full", host="a"),
        node("small-1", host="b"),
    )
    decode = create_placer(settings, "decode", Random(1))
    decode.refresh(nodes)
    shortlist = decode.place(Ask(1000, 100, host="a"))
    assert shortlist.names == ("near", "far")
    assert choose(shortlist, {"near": 25_000, "far": 0}, lambda _: True) == "far"
    prefill = create_placer(settings, "prefill", Random(1))
    prefill.refresh(nodes)
    assert prefill.place(Ask(100, 10)).names == ("small-1",)
    assert prefill.place(Ask(1000, 10)) == Shortlist()
    sys.modules.pop("placement_policy")
