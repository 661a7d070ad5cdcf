"""The compose files: valid, closed to others, and their commands run as plain processes."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from inferq import Client, Settings
from tests.cluster_harness import free_port
from tests.compose import BASE, ROOT, load
from tests.compose_machine import Machine, make_secrets, read_all
from tests.support import LONG_S, wait_until

GPU = {"INFERQ_GPU_BASE": "base", "INFERQ_LLAMACPP_INDEX": "https://index.test"}
VLLM = {"VLLM_MODEL": "some/model"}
WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "alone": ([BASE], {}),
    "gpu": ([BASE, "docker-compose.gpu.yml"], GPU),
    "vllm": ([BASE, "docker-compose.vllm.yml"], VLLM),
}
OURS = ("prefill", "decode", "mixed", "flower")


@pytest.fixture(params=WAYS)
def composed(request: pytest.FixtureRequest) -> dict[str, Any]:
    files, env = WAYS[request.param]
    return load(files, env)


@pytest.mark.parametrize("path", sorted(ROOT.glob("docker-compose*.yml")), ids=lambda p: p.name)
def test_it_is_valid(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*command, "vendor.compose-spec", str(path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_ports_are_open_to_this_machine_only(composed: dict[str, Any]) -> None:
    for service in composed["services"].values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_services_are_confined(composed: dict[str, Any]) -> None:
    for name, service in composed["services"].items():
        if name.startswith("vllm"):  # its image runs as root and writes where it likes
            continue
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        assert "healthcheck" in service, name
        assert re.search(r"^inferq(-gpu)?$|:[v0-9][\w.-]+$", service["image"]), name


def test_secrets_are_files_that_the_script_makes(composed: dict[str, Any], tmp_path: Path) -> None:
    made = set(read_all(make_secrets(tmp_path)))
    assert {name: where["file"] for name, where in composed["secrets"].items()} == {
        name: f"./deploy/secrets/{name}" for name in made
    }
    for service in composed["services"].values():
        assert set(service.get("secrets", ())) <= made
        for name, value in service.get("environment", {}).items():
            if any(word in name for word in ("PASSWORD", "TOKEN", "KEY", "AUTH")):
                assert name.endswith("_FILE"), f"{name}={value}"


def test_secrets_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    secrets = make_secrets(tmp_path)
    first = read_all(secrets)
    make_secrets(tmp_path)
    assert first == read_all(secrets)
    assert (secrets / ".gitignore").read_text() == "*\n"
    assert len({text.strip() for text in first.values()}) == len(first), "each its own"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700


def test_settings_exist(composed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, service in composed["services"].items():
        environment = service.get("environment", {})
        given = {k: v for k, v in environment.items() if k.startswith("INFERQ_")}
        if name not in OURS:
            continue
        with monkeypatch.context() as patch:
            for key, value in given.items():
                patch.setenv(key, "/dev/null" if key.endswith("_FILE") else value)
            for key in given:
                if key.endswith("_FILE"):
                    patch.delenv(key)
            assert Settings().scheduler_host == "redis"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        running = Machine(tmp_path, stack)
        running.start_redis()
        yield running


def test_redis_starts_with_users_and_without_losing_anything(machine: Machine) -> None:
    with machine.admin() as admin:
        wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction", "appendfsync": "everysec"}
        assert admin.config_get(*wanted) == wanted
        users = {"node", "producer", "stock", "monitor", "operator", "admin", "default"}
        assert set(admin.acl_users()) == users
        assert "off" in admin.acl_getuser("default")["flags"]
        assert admin.acl_list()  # hashes only
        said = json.dumps(admin.acl_list()) + machine.log_path("redis").read_text()
    assert machine.secret("redis_admin") not in said
    for name, password in (("node", ""), ("node", "wrong"), (None, None)):
        nobody = redis.Redis(port=machine.redis_port, username=name, password=password)
        with nobody, pytest.raises(redis.exceptions.AuthenticationError):
            nobody.ping()


def test_its_health_check_keeps_the_password_off_the_command_line(
    machine: Machine, tmp_path: Path
) -> None:
    """With something in the place of valkey-cli that does what the check needs of it."""
    cli = tmp_path / "bin" / "valkey-cli"
    cli.parent.mkdir()
    cli.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, redis\n"
        "assert sys.argv[1:] == ['--user', 'monitor', '--no-auth-warning', 'ping']\n"
        f"client = redis.Redis(port={machine.redis_port}, username='monitor',\n"
        "    password=os.environ['REDISCLI_AUTH'])\n"
        "print('PONG' if client.ping() else '')\n"
    )
    cli.chmod(0o755)
    script = tmp_path / "deploy/redis/health.sh"
    path = f"{cli.parent}:{os.defpath}"

    def is_healthy() -> bool:
        env = {**machine.environment("redis"), "PATH": path}
        return subprocess.run([script], env=env, check=False, capture_output=True).returncode == 0

    assert is_healthy()
    machine.processes["redis"].send_signal(signal.SIGKILL)
    machine.processes["redis"].wait()
    assert not is_healthy()


@pytest.mark.slow
@pytest.mark.model
def test_the_cluster_answers_with_the_packaged_model(machine: Machine) -> None:
    machine.start_service("prefill")
    machine.start_service("decode")
    machine.start_service("flower", f"--port={(port := free_port())}", "--address=127.0.0.1")

    def settled(service: str) -> bool:
        assert machine.processes[service].poll() is None, machine.log_path(service).read_text()
        return "ready" in machine.log_path(service).read_text()

    wait_until(lambda: settled("prefill") and settled("decode"))
    for service in ("prefill", "decode"):
        done = machine.health(service)
        assert done.returncode == 0, (done, machine.log_path(service).read_text())
        assert "answered in" in done.stdout
    with Client(machine.client_settings()) as client:
        result = client.generate(
            prompt="The capital of France is",
            max_tokens=4,
            temperature=0.0,
            ignore_eos=True,
            timeout=LONG_S,
        )
        assert len(result.token_ids) == 4
        crossing = result.crossing
        assert crossing is not None
        assert crossing.node.startswith("prefill@")
    check_flower(machine, port)
    check_nothing_is_said(machine)

    # A node that stands still is found out.
    machine.processes["decode"].send_signal(signal.SIGSTOP)
    done = machine.health("decode", HEALTH_TIMEOUT_S="2")
    assert done.returncode == 1, done
    machine.processes["decode"].send_signal(signal.SIGCONT)
    for service in ("prefill", "decode"):
        machine.processes[service].terminate()
        assert machine.processes[service].wait(LONG_S) == 0
    gone = machine.health("prefill")
    assert gone.returncode == 1
    assert "lost" in gone.stdout


def check_flower(machine: Machine, port: int) -> None:
    """It is up, and asks who is there."""
    url = f"http://127.0.0.1:{port}"
    test = machine.composed["services"]["flower"]["healthcheck"]["test"]
    command = [part.replace("5555", str(port)) for part in test[1:]]
    env = machine.environment("flower")
    wait_until(
        lambda: subprocess.run(command, env=env, check=False, capture_output=True).returncode == 0
    )
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/workers", timeout=LONG_S)
    proof = b64encode(machine.secret("flower_auth").encode()).decode()

    def read(path: str) -> str:
        request = urllib.request.Request(
            f"{url}{path}", headers={"Authorization": f"Basic {proof}"}
        )
        with urllib.request.urlopen(request, timeout=LONG_S) as answer:
            return str(answer.read().decode())

    assert "default.prefill" in read("/api/queues/length")
    for path in ("/workers", "/broker", "/cluster", "/request"):
        assert "<html" in read(path)
    assert "prefill@" in read("/cluster/data")
    metrics = read("/metrics")
    assert 'flower_worker_online{worker="decode@' in metrics
    assert re.search(r"^inferq_redis_up\S* 1\.0$", metrics, re.MULTILINE)


def check_nothing_is_said(machine: Machine) -> None:
    """No secret is in a log or on a command line."""
    secrets = [text.strip() for text in read_all(machine.secrets).values()]
    secrets.append(machine.secret("flower_auth").partition(":")[2])
    for service, process in machine.processes.items():
        shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        said = shown + machine.log_path(service).read_text(errors="replace")
        assert not [secret for secret in secrets if secret in said], service
    with machine.admin() as admin:
        assert admin.acl_log() == [], "somebody lacks a right"
