"""``settings show`` and ``settings check``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferq.commands.conflicts import conflicts
from inferq.settings import Settings
from tests.commands.conftest import Ask

SECRET = "the-secret-word"


def shown(ask: Ask, *arguments: str) -> dict[str, tuple[Any, str]]:
    """Value and source of each setting."""
    rows = ask("settings", "show", *arguments, "--json").json
    return {row["name"]: (row["value"], row["source"]) for row in rows}


def test_every_setting_is_shown_with_its_source(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INFERQ_SCHEDULER_TTL", "60")
    monkeypatch.setenv("INFERQ_CLUSTER__LEASE_TTL_S", "4")
    (tmp_path / ".env").write_text("INFERQ_SCHEDULER_TTL=70\nINFERQ_SCHEDULER_DB=3\nOTHER=1\n")
    (tmp_path / "inferq.toml").write_text(
        'scheduler_db = 4\nscheduler_host = "redis.here"\n[cluster]\nmax_attempts = 7\n'
    )
    rows = shown(ask, "--setting", "cluster.stall_s=9")
    assert rows["scheduler_ttl"] == (60, "environment")
    assert rows["cluster.lease_ttl_s"] == (4.0, "environment")
    assert rows["scheduler_db"] == (3, ".env")
    assert rows["scheduler_host"] == ("redis.here", "inferq.toml")
    assert rows["cluster.max_attempts"] == (7, "inferq.toml")
    assert rows["cluster.stall_s"] == (9.0, "option")
    assert rows["scheduler_port"] == (6379, "default")
    assert rows["scheduler_name"] == ("global", "default")
    changed = shown(ask, "--changed")
    assert set(changed) == {
        "scheduler_ttl",
        "cluster.lease_ttl_s",
        "scheduler_db",
        "scheduler_host",
        "cluster.max_attempts",
    }


def test_a_group_in_one_variable_is_seen(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERQ_CLUSTER", '{"stall_s": 5}')
    assert shown(ask)["cluster.stall_s"] == (5.0, "environment")


def test_secrets_are_masked(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERQ_SCHEDULER_URL", f"redis://user:{SECRET}@host/0")
    monkeypatch.setenv("INFERQ_OPENAI__API_KEY", SECRET)
    rows = shown(ask)
    assert rows["scheduler_url"] == ("(secret)", "environment")
    assert rows["openai.api_key"] == ("(secret)", "environment")
    assert rows["scheduler_password"] == ("", "default")
    for arguments in (("show",), ("show", "--json"), ("check",)):
        answer = ask("settings", *arguments)
        assert SECRET not in answer.out + answer.err


def test_settings_work_without_a_server(ask: Ask) -> None:
    assert ask("settings", "check") == (0, "the settings are right\n", "")
    assert ask("settings", "show").code == 0
    assert ask("settings", "check", "--json").json == []


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("INFERQ_SCHEDULER_TTL", "0", "scheduler_ttl='0'"),
        ("INFERQ_NONSENSE__X", "1", ""),
        ("INFERQ_CLUSTER__LEASE_TTL_S", "x", "cluster.lease_ttl_s='x'"),
        ("INFERQ_SCHEDULER_URL", f"http://:{SECRET}@host", "scheduler_url=(secret)"),
    ],
)
def test_a_wrong_setting_is_one_line(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, name: str, value: str, error: str
) -> None:
    monkeypatch.setenv(name, value)
    for command in ("check", "show"):
        answer = ask("settings", command)
        if not error:  # names of which nobody knows are not ours to judge
            assert answer.code == 0
            continue
        assert (answer.code, answer.out) == (2, "")
        assert error in answer.err
        assert len(answer.err.splitlines()) == 1
        assert SECRET not in answer.err


def test_a_broken_file_is_one_line(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "inferq.toml").write_text("scheduler_ttl = = 5")
    answer = ask("settings", "show")
    assert answer.code == 2
    assert answer.err.startswith("inferq: settings cannot be read: ")


@pytest.mark.parametrize(
    ("values", "level", "names"),
    [
        ({"scheduler_name": "global", "role": "prefill"}, "wrong", "role='prefill'"),
        (
            {"scheduler_expire_period": 2, "cluster": {"lease_ttl_s": 3}},
            "wrong",
            "scheduler_expire_period=2",
        ),
        ({"scheduler_ttl": 4, "cluster": {"lease_ttl_s": 3}}, "wrong", "scheduler_ttl=4"),
        ({"limits": {"max_message_bytes": 2**30}}, "wrong", "limits.max_message_bytes"),
        ({"scheduler_max_size": 5}, "note", "scheduler_max_size"),
        ({"cluster": {"steal_after_s": 1000}}, "note", "cluster.steal_after_s"),
        (
            {"cluster": {"origin_ttl_s": 5, "redis_timeout_s": 5}},
            "note",
            "cluster.origin_ttl_s",
        ),
        ({"cluster": {"drain_timeout_s": 1000}}, "note", "cluster.drain_timeout_s"),
    ],
)
def test_settings_that_do_not_go_together_are_named(
    values: dict[str, Any], level: str, names: str
) -> None:
    found = list(conflicts(Settings(**{"scheduler_name": "global", **values})))
    assert any(finding.level == level and names in finding.what for finding in found)
    assert all(finding.do for finding in found)


@pytest.mark.parametrize("name", ["local", "global", "splitwise"])
def test_the_defaults_go_together(name: Any) -> None:
    assert list(conflicts(Settings(scheduler_name=name))) == []


def test_check_fails_when_settings_do_not_go_together(ask: Ask) -> None:
    answer = ask("settings", "check", "--setting", "scheduler_ttl=1")
    assert answer.code == 1
    assert "scheduler_ttl=1" in answer.out
    assert ask("settings", "check", "--setting", "scheduler_max_size=5").code == 0
