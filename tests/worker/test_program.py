"""Options of ``celery -A inferq worker``, and what is refused at start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from celery.exceptions import ImproperlyConfigured

from inferq import Settings, SettingsError
from inferq.app import create_cluster_app
from inferq.worker.options import settings_of
from inferq.worker.program import check, refuse
from tests.support import LONG_S

#: Nothing listens here: whatever is refused is refused before Redis is asked.
NOWHERE = "redis://127.0.0.1:1/0"


def cluster() -> Settings:
    return Settings(scheduler_name="global", scheduler_url=NOWHERE)


def worker(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "inferq", "worker", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )


def test_options_go_before_every_other_source() -> None:
    options = {
        "inferq_topic": "other",
        "inferq_engine": "noop",
        "inferq_model": "my.gguf",
        "inferq_setting": ("cluster.lease_ttl_s=5", "scheduler_ttl=60"),
        "loglevel": "INFO",
    }
    settings = settings_of(cluster(), options)
    assert settings.scheduler_topic == "other"
    assert settings.engine == "noop"
    assert settings.llamacpp.model == "my.gguf"
    assert settings.cluster.lease_ttl_s == 5
    assert settings.scheduler_ttl == 60
    assert settings.scheduler_url == NOWHERE
    assert options == {"loglevel": "INFO"}


def test_without_options_the_settings_stay() -> None:
    settings = cluster()
    assert settings_of(settings, {"inferq_topic": None, "inferq_setting": ()}) is settings


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("cluster.lease_ttl_s", "NAME=VALUE"),
        ("cluster.lease_ttl_s=never", "cluster.lease_ttl_s='never'"),
        ("cluster.lease=3", "cluster.lease: unknown setting; allowed are"),
        ("nothing.at.all=3", "nothing.at.all: unknown setting"),
    ],
)
def test_a_wrong_setting_is_named(pair: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings_of(cluster(), {"inferq_setting": (pair,)})


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("queues", "celery", "-Q"),
        ("exclude_queues", "celery", "-X"),
        ("autoscale", "1,2", "--autoscale"),
        ("max_tasks_per_child", 5, "--max-tasks-per-child"),
    ],
)
def test_options_that_would_take_a_decision_away_are_refused(
    option: str, value: object, said: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        refuse({option: value})


def test_a_broker_elsewhere_is_refused() -> None:
    app = create_cluster_app(cluster())
    app.conf.broker_url = "redis://elsewhere:6379/0"
    with pytest.raises(ImproperlyConfigured, match="broker_url"):
        check(app)


def test_nodes_of_the_global_scheduler_are_mixed() -> None:
    app = create_cluster_app(cluster().model_copy(update={"role": "prefill"}))
    with pytest.raises(SettingsError, match="role='prefill'"):
        check(app)


def test_help_shows_our_options(tmp_path: Path) -> None:
    shown = worker(tmp_path, "--help").stdout
    for option in ("--topic", "--role", "--engine", "--model", "--drain-timeout", "--setting"):
        assert option in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-P", "solo"), "leave -P away"),
        (("-Q", "x"), "-Q"),
        (("--setting", "cluster.lease_ttl_s=0"), "cluster.lease_ttl_s"),
    ],
)
def test_a_wrong_command_ends_with_one_line(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    done = worker(tmp_path, *options)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
