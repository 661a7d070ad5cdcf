from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from inferq import Settings, SettingsError

SECRET = "hunter2-hunter2"


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)


def test_the_password_is_never_shown() -> None:
    settings = Settings(scheduler_password=SECRET)
    assert settings.scheduler_password == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert SECRET not in f"{settings}"


@pytest.mark.parametrize("value", [[SECRET], {SECRET: 1}, SECRET.encode() + b"\xff", 73313])
def test_an_error_about_the_password_does_not_show_it(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"scheduler_password=\(secret\)") as caught:
        Settings(scheduler_password=value)
    assert SECRET not in str(caught.value)
    assert "73313" not in str(caught.value)


def test_an_error_about_another_setting_does_not_show_the_password() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(scheduler_password=SECRET, scheduler_ttl=0)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


def test_a_file_that_cannot_be_read_does_not_show_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERQ_SCHEDULER_PASSWORD", SECRET)
    (tmp_path / "inferq.toml").write_text(f"scheduler_password = {SECRET}\n")
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize("name", ["scheduler_pasword", "simulated.scheduler_password"])
def test_a_misplaced_password_is_not_shown(tmp_path: Path, name: str) -> None:
    (tmp_path / "inferq.toml").write_text(f"{name} = '{SECRET}'\n")
    with pytest.raises(SettingsError, match="unknown setting") as caught:
        Settings()
    assert SECRET not in everything_said(caught.value)
