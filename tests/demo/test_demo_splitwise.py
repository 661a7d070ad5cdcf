"""Splitwise mode as a whole: a Redis, two nodes and a producer, each in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.demo.support import demo, disturbed, interrupted, nodes_of

SIMULATED = ("splitwise", "--engine", "simulated")
QUICK = (*SIMULATED, "--speedup", "inf", "--max-tokens", "10")
#: Answers that do not end by themselves.
ENDLESS = (*SIMULATED, "--speedup", "0.1", "--max-tokens", "5000")
#: One that takes some seconds.
SLOW = (*SIMULATED, "--requests", "1", "--max-tokens", "60")
ALONE = "on a single engine"


def crossed(output: str) -> list[int]:
    """The bytes of each KV cache that crossed."""
    line = r"^  #\d +prefill0 -> decode0 +([\d,]+) +memfd +[\d.]+ "
    return [int(text.replace(",", "")) for text in re.findall(line, output, re.MULTILINE)]


def equal(output: str) -> list[int]:
    """The tokens of each answer that is as on a single engine."""
    line = r"^  #\d +(\d+) +[\d.]+ +[\d.]+ +yes "
    return [int(text) for text in re.findall(line, output, re.MULTILINE)]


def test_each_kv_cache_crosses_and_each_answer_is_that_of_one_engine(folder: Path) -> None:
    done = demo(folder, *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.count("finished after") == 16
    sizes = crossed(done.stdout)
    assert len(sizes) == 8
    assert min(sizes) > 0
    assert equal(done.stdout) == [10] * 8
    assert "total: 8 requests" in done.stdout
    assert "all 8 answers are equal, 80 tokens" in done.stdout


def test_an_answer_that_needs_no_decode_node_is_an_error(folder: Path) -> None:
    done = demo(folder, *QUICK, env={"INFERQ_SIMULATED__END_PROBABILITY": "1"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: 8 of 8 requests did not go as they must\n")
    assert "#1 was computed by prefill0@demo alone" in done.stderr
    assert "are equal" not in done.stdout


def test_a_kv_cache_of_nothing_is_an_error(folder: Path) -> None:
    done = demo(folder, *QUICK, env={"INFERQ_SIMULATED__KV_BYTES_PER_TOKEN": "0"})
    assert done.returncode == 1
    assert "#8 was continued by decode0@demo without its KV cache" in done.stderr


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_when_one_of_the_two_is_killed_it_ends_and_says_which(folder: Path, role: str) -> None:
    def kill_one(demo: subprocess.Popen[str]) -> None:
        [node] = [node for node in nodes_of(demo) if f"{role}0@demo" in node.cmdline()]
        node.kill()

    status, _, errors = disturbed(folder, ENDLESS, "computes KV caches", kill_one)
    assert status == 1
    assert errors.startswith(f"error: {role}0@demo ended with -9")


def test_an_interrupt_of_the_comparison_leaves_what_is_known(folder: Path) -> None:
    status, output, errors = interrupted(folder, SLOW, ALONE, signal.SIGINT)
    assert (status, errors) == (130, "")
    assert "cancelled" in output
    assert len(crossed(output)) == 1
    assert equal(output) == []
    assert "are equal" not in output


def test_a_signal_to_end_ends_the_comparison(folder: Path) -> None:
    status, _, errors = interrupted(folder, SLOW, ALONE, signal.SIGTERM)
    assert (status, errors) == (130, "cancelled\n")


@pytest.mark.model
def test_the_real_model_answers_on_two_nodes_as_on_one(folder: Path) -> None:
    pytest.importorskip("xllamacpp")
    done = demo(folder, "splitwise", "--max-tokens", "16", "--requests", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout
    sizes = crossed(done.stdout)
    assert len(sizes) == 4
    assert min(sizes) > 100_000
    assert len(equal(done.stdout)) == 4
    assert "all 4 answers are equal" in done.stdout
