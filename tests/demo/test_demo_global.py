"""Global mode as a whole: a Redis, nodes and a producer, each in a process of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.demo.support import demo, disturbed, nodes_of

#: Each answer takes long enough for the idle node to notice.
SIMULATED = ("global", "--engine", "simulated", "--speedup", "5", "--max-tokens", "30")
#: Answers that do not end by themselves.
ENDLESS = ("global", "--engine", "simulated", "--speedup", "0.1", "--max-tokens", "5000")


def test_an_idle_node_steals_from_the_one_that_all_prompts_were_sent_to(folder: Path) -> None:
    done = demo(folder, *SIMULATED)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.count("finished after") == 8
    assert len(re.findall(r"^  #\d +gpu1@demo +yes +0 +30 ", done.stdout, re.MULTILINE)) >= 2
    assert len(re.findall(r"^  #\d +gpu0@demo +0 +30 ", done.stdout, re.MULTILINE)) >= 2
    assert re.search(r"gpu1@demo +ready +[2-6] ", done.stdout)
    assert "total: 8 requests" in done.stdout


def test_when_no_node_is_left_it_ends_and_says_why(folder: Path) -> None:
    def kill_nodes(demo: subprocess.Popen[str]) -> None:
        for node in nodes_of(demo):
            node.kill()

    status, _, errors = disturbed(folder, ENDLESS, "all prompts go to", kill_nodes)
    assert status == 1
    assert errors.startswith("error: gpu0@demo ended with -9")


@pytest.mark.model
def test_two_nodes_answer_with_the_real_model(folder: Path) -> None:
    pytest.importorskip("xllamacpp")
    done = demo(folder, "global", "--max-tokens", "24")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("finished after") == 8
    assert "Paris" in done.stdout
    for node in ("gpu0@demo", "gpu1@demo"):
        assert re.search(rf"{node} +ready +[1-7] ", done.stdout)
