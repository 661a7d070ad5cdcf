from __future__ import annotations

from pathlib import Path

import pytest

from inferq import Settings, SettingsError


def write(folder: Path, name: str, *lines: str) -> None:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_first_source_that_knows_a_setting_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings().scheduler_ttl == 900
    write(tmp_path, "inferq.toml", "scheduler_ttl = 1")
    assert Settings().scheduler_ttl == 1
    write(tmp_path, ".env", "INFERQ_SCHEDULER_TTL=2")
    assert Settings().scheduler_ttl == 2
    monkeypatch.setenv("INFERQ_SCHEDULER_TTL", "3")
    assert Settings().scheduler_ttl == 3
    assert Settings(scheduler_ttl=4).scheduler_ttl == 4


def test_sources_complete_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "inferq.toml", "engine = 'noop'", "[simulated]", "max_slots = 5")
    write(tmp_path, ".env", "INFERQ_SIMULATED__BLOCK_SIZE=16")
    monkeypatch.setenv("INFERQ_SIMULATED__TOTAL_BLOCKS", "99")
    settings = Settings(scheduler_db=3)
    assert settings.engine == "noop"
    assert settings.scheduler_db == 3
    simulated = settings.simulated
    assert (simulated.max_slots, simulated.block_size, simulated.total_blocks) == (5, 16, 99)


def test_a_group_may_be_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERQ_LIMITS", '{"max_claims": 12}')
    assert Settings().limits.max_claims == 12


def test_names_of_variables_may_be_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("inferq_scheduler_port", "7000")
    assert Settings().scheduler_port == 7000


def test_foreign_names_are_not_our_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path,
        ".env",
        "SCHEDULER_TTL=nonsense",
        "ENGINE=warp",
        "DATABASE_URL=postgres://",
        "INFERQ_SCHEDULER_DB=2",
    )
    monkeypatch.setenv("SCHEDULER_PORT", "nonsense")
    settings = Settings()
    assert settings.scheduler_db == 2
    assert settings.scheduler_ttl == 900
    assert settings.engine == "simulated"


def test_a_misspelled_name_of_ours_in_dotenv_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, ".env", "INFERQ_SCHEDULER_TLT=5")
    with pytest.raises(SettingsError, match=r"scheduler_tlt.*unknown setting.*scheduler_ttl"):
        Settings()


def test_an_unknown_key_in_toml_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, "inferq.toml", "scheduler_tll = 5")
    with pytest.raises(
        SettingsError, match=r"scheduler_tll: unknown setting.*scheduler_ttl"
    ) as caught:
        Settings()
    assert caught.value.names == ("scheduler_tll",)


def test_an_unknown_key_in_a_group_is_answered_with_the_keys_of_the_group(tmp_path: Path) -> None:
    write(tmp_path, "inferq.toml", "[simulated]", "slots = 5")
    with pytest.raises(SettingsError, match=r"simulated\.slots: unknown.*max_slots") as caught:
        Settings()
    assert "scheduler_ttl" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("scheduler_ttl = 'soon'", "scheduler_ttl='soon'.*integer"),
        ("scheduler_ttl = 1.5", "scheduler_ttl=1.5.*integer"),
        ("scheduler_port = [1]", r"scheduler_port=\[1\].*integer"),
        ("scheduler_host = 5", "scheduler_host=5.*string"),
        ("simulated = 5", "simulated=5"),
        ("engine = '../etc'", "engine='../etc'"),
        ("simulated.preset = 'abacus'", "simulated.preset='abacus'.*llama2-70b-h100-tp8"),
    ],
)
def test_a_wrong_value_in_toml_is_named_with_what_is_allowed(
    tmp_path: Path, line: str, said: str
) -> None:
    write(tmp_path, "inferq.toml", line)
    with pytest.raises(SettingsError, match=said):
        Settings()


@pytest.mark.parametrize("text", ["scheduler_ttl = = 5", "[simulated", "\x00", "\udcff"])
def test_toml_that_cannot_be_read_is_a_settings_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "inferq.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match="cannot be read"):
        Settings()


def test_a_dotenv_that_is_no_text_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"INFERQ_SCHEDULER_TTL=\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        Settings()


def test_json_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERQ_SIMULATED", "{max_slots: 5")
    with pytest.raises(SettingsError, match="simulated"):
        Settings()


def test_a_wrong_variable_is_named_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERQ_SCHEDULER_PORT", "99999")
    with pytest.raises(SettingsError, match=r"scheduler_port='99999'.*65535"):
        Settings()
