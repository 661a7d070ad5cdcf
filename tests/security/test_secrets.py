"""Secrets come from files, and are in nothing that anybody can look at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from inferq import Client, Settings, SettingsError
from inferq.cluster.address import address_of, kombu_url
from inferq.cluster.users import main as users_main
from inferq.commands.main import cli
from tests.cluster_harness import TOPIC, Cluster
from tests.faults.processes import ROOT, Command
from tests.security.acl import PASSWORD, Users
from tests.support import LONG_S, wait_until

SECRET = "hunter2-hunter2"


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return str(path)


def test_the_password_of_a_file_goes_with_parts_and_with_a_url(secret: str) -> None:
    redis = {"user": "node", "password_file": secret}
    assert kombu_url(Settings(redis=redis)) == f"redis://node:{SECRET}@127.0.0.1:6379/0"
    by_url = Settings(scheduler_url="rediss://h:1/2", redis=redis)
    assert kombu_url(by_url) == f"rediss://node:{SECRET}@h:1/2"
    for shown in (repr(by_url), repr(address_of(by_url)), str(by_url)):
        assert SECRET not in shown


def test_a_new_password_is_read_without_a_restart_of_the_settings(secret: str) -> None:
    settings = Settings(redis={"password_file": secret})
    Path(secret).write_text("another")
    assert address_of(settings).password == "another"


def test_the_token_of_kv_transfer_comes_from_a_file(secret: str) -> None:
    assert Settings(transfer={"token_file": secret}).transfer.secret == SECRET


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is one line of text"),
        (b"\n", "is one line of text"),
        (b"hunter2\nhunter3", "is one line of text"),
        (b"hunter2\xff", "is text in UTF-8"),
        (b"h" * 5000, "has at most 4096 bytes"),
    ],
)
@pytest.mark.parametrize("setting", ["redis.password_file", "transfer.token_file"])
def test_a_wrong_file_is_said_at_start(
    tmp_path: Path, setting: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    group, name = setting.split(".")
    with pytest.raises(SettingsError, match=said) as caught:
        Settings(**{group: {name: str(path)}})
    assert group in str(caught.value)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scheduler_password": SECRET}, r"redis\.password_file: .* given as well"),
        ({"scheduler_url": f"redis://:{SECRET}@h"}, r"redis\.password_file: .* given as well"),
        ({"scheduler_url": "redis://somebody@h"}, r"redis\.user: scheduler_url names a user"),
    ],
)
def test_two_ways_to_say_it_contradict_each_other(
    secret: str, values: dict[str, Any], said: str
) -> None:
    settings = Settings(**values, redis={"password_file": secret, "user": "node"})
    with pytest.raises(SettingsError, match=said) as caught:
        address_of(settings)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "pair",
    [
        f"scheduler_password={SECRET}",
        f"scheduler_url=redis://:{SECRET}@h",
        f"transfer.token={SECRET}",
        f"openai.api_key={SECRET}",
    ],
)
def test_a_secret_on_a_command_line_is_refused(pair: str) -> None:
    done = CliRunner().invoke(cli, ["nodes", "--setting", pair])
    assert done.exit_code != 0
    assert "a secret does not belong on a command line" in done.output
    assert SECRET not in done.output


def test_a_worker_shows_none_of_its_secrets(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    """Neither to Celery's control commands, nor in its log at DEBUG, nor to ``ps``."""
    cluster = make_cluster()
    users = Users(cluster.redis, TOPIC)
    files = {"redis": tmp_path / "password", "token": tmp_path / "token", "key": tmp_path / "key"}
    secrets = {"redis": PASSWORD, "token": "t0ken-t0ken", "key": "k3y-k3y-k3y"}
    for name, path in files.items():
        path.write_text(secrets[name])
    env = {
        "INFERQ_SCHEDULER_TOPIC": TOPIC,
        "INFERQ_SCHEDULER_PORT": str(cluster.server.port),
        "INFERQ_REDIS__USER": "node",
        "INFERQ_REDIS__PASSWORD_FILE": str(files["redis"]),
        "INFERQ_TRANSFER__TOKEN_FILE": str(files["token"]),
        "INFERQ_OPENAI__API_KEY_FILE": str(files["key"]),
        "INFERQ_ENGINE": "noop",
    }
    arguments = ["-m", "celery", "-A", "inferq", "worker", "-n", "a@test", "-l", "DEBUG"]
    node = Command("a@test", arguments, env, tmp_path / "worker.log")
    cluster.processes.append(node)
    cluster.ready(node)
    with cluster.client(url=users.url("operator", cluster.server.port)) as client:
        client.generate(prompt="x", max_tokens=2, timeout=LONG_S)
        inspect = client.app.control.inspect(["a@test"], timeout=LONG_S, limit=1)
        said = [json.dumps(inspect.conf(with_defaults=True)), json.dumps(inspect.stats())]
        said.append(json.dumps(inspect.report()))
    assert "inferq.results.redis" in said[0], "there was an answer"
    record = cluster.redis.hget(f"inferq:{TOPIC}:nodes", "a@test")
    said += [node.log(), str(record)]
    said += [Path(f"/proc/{node.pid}/{name}").read_text() for name in ("cmdline", "comm")]
    for text in said:
        assert not [secret for secret in secrets.values() if secret in text]


def test_a_file_of_users_holds_hashes_only(
    secret: str, capsys: pytest.CaptureFixture[str], make_cluster: Callable[..., Cluster]
) -> None:
    assert users_main(["--topic", "mine", f"node={secret}", f"admin={secret}"]) == 0
    text = capsys.readouterr().out
    assert SECRET not in text
    lines = [line for line in text.splitlines() if line.startswith("user ")]
    assert [line.split()[1] for line in lines] == ["default", "node", "admin"]
    cluster = make_cluster()
    for line in lines[1:]:  # Redis understands them
        cluster.execute(f"ACL SETUSER {line.removeprefix('user ')}")
    settings = Settings(
        scheduler_name="global",
        scheduler_topic="mine",
        scheduler_port=cluster.server.port,
        redis={"user": "admin", "password_file": secret},
    )
    with Client(settings) as client:
        wait_until(lambda: client.counts().waiting == 0)


def test_the_template_of_users_is_current() -> None:
    script = ROOT / "scripts" / "redis_users.py"
    done = subprocess.run([sys.executable, script, "--check"], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
