"""README and documents: links lead somewhere, and the Python of the README runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster_harness import Cluster
from tests.examples.conftest import environment
from tests.support import LONG_S

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for name, heading in LINK.findall(document.read_text()):
        target = document.parent / name if name else document
        assert target.exists(), name
        if heading:
            assert heading in anchors(target), f"{name}#{heading}"


def anchors(document: Path) -> set[str]:
    """The names that headings have in a browser."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run(code: str, env: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.model
def test_the_first_program_of_the_readme_answers(tmp_path: Path) -> None:
    one, _ = BLOCK.findall((ROOT / "README.md").read_text())
    assert len(run(one, {**os.environ, "OMP_WAIT_POLICY": "passive"}, tmp_path)) > 10


def test_the_second_program_of_the_readme_answers(cluster: Cluster, tmp_path: Path) -> None:
    _, two = BLOCK.findall((ROOT / "README.md").read_text())
    lines = run(two, environment(cluster), tmp_path).splitlines()
    assert ["length" in line for line in lines] == [True] * 10
