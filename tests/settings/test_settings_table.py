from __future__ import annotations

from typing import Any

import pytest

from inferq import Settings, SettingsError
from inferq.settings.scheduler import SchedulerSettings

TABLE: dict[str, tuple[type, Any]] = {
    "scheduler_name": (str, "local"),
    "scheduler_max_size": (int, -1),
    "scheduler_ttl": (int, 900),
    "scheduler_host": (str, "127.0.0.1"),
    "scheduler_port": (int, 6379),
    "scheduler_db": (int, 0),
    "scheduler_password": (str, ""),
    "scheduler_topic": (str, "default"),
    "scheduler_min_load_score": (float, 3),
    "scheduler_load_shards_num": (int, 1),
    "scheduler_sync_period": (int, 5),
    "scheduler_expire_period": (int, 3000),
    "scheduler_release_load_expire_period": (int, 600),
    "scheduler_reader_parallel": (int, 4),
    "scheduler_writer_parallel": (int, 4),
    "scheduler_reader_batch_size": (int, 200),
    "scheduler_writer_batch_size": (int, 200),
}
A_VALUE_OF = {int: 7, float: 7.5, str: "decode-7"}
WRONG: dict[str, Any] = {
    "scheduler_name": "pigeon",
    "scheduler_max_size": -2,
    "scheduler_ttl": 0,
    "scheduler_host": "",
    "scheduler_port": 65536,
    "scheduler_db": -1,
    "scheduler_topic": "a.b",
    "scheduler_min_load_score": float("nan"),
    "scheduler_load_shards_num": 0,
    "scheduler_sync_period": 0,
    "scheduler_expire_period": 0,
    "scheduler_release_load_expire_period": 0,
    "scheduler_reader_parallel": 0,
    "scheduler_writer_parallel": 0,
    "scheduler_reader_batch_size": 0,
    "scheduler_writer_batch_size": 0,
}


def test_the_scheduler_settings_are_exactly_those_of_the_table() -> None:
    assert set(SchedulerSettings.model_fields) - {"scheduler_url"} == set(TABLE)
    ours = {n for n in Settings.model_fields if n.startswith("scheduler_")} - {"scheduler_url"}
    assert ours == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_has_the_default_of_the_table(name: str) -> None:
    kind, default = TABLE[name]
    value = getattr(Settings(), name)
    assert value == default
    assert isinstance(value, (int, float) if kind is float else kind)


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_takes_values_of_its_type(name: str) -> None:
    kind, _ = TABLE[name]
    value = "global" if name == "scheduler_name" else A_VALUE_OF[kind]
    taken = getattr(Settings(**{name: value}), name)
    assert taken == value
    assert type(taken) is kind


@pytest.mark.parametrize("name", [n for n, (kind, _) in TABLE.items() if kind is not str])
def test_a_setting_refuses_what_is_no_number_and_says_which(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}='many'.*valid (integer|number)") as caught:
        Settings(**{name: "many"})
    assert caught.value.names == (name,)


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_refuses_values_out_of_range_and_says_which(name: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        Settings(**{name: WRONG[name]})
    assert caught.value.names == (name,)


def test_a_wrong_name_of_a_scheduler_is_answered_with_the_right_ones() -> None:
    with pytest.raises(SettingsError, match="'local', 'global' or 'splitwise'"):
        Settings(scheduler_name="pigeon")


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(scheduler_ttl=0, scheduler_port=0, simulated={"speedup": 0})
    assert set(caught.value.names) == {"scheduler_ttl", "scheduler_port", "simulated.speedup"}


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_max_size_may_be_unbounded_in_two_ways(size: int) -> None:
    assert Settings(scheduler_max_size=size).scheduler_max_size == size


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.scheduler_ttl = 5  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        settings.limits.max_claims = 5  # type: ignore[misc]
    assert settings.scheduler_ttl == 900


def test_every_setting_says_what_it_means() -> None:
    for name, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        if inner is None:
            assert field.description, name
        else:
            assert all(option.description for option in inner.values()), name
