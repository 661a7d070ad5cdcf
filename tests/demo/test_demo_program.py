"""The program as a whole, in a process of its own."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.demo.support import demo, interrupted


def test_a_load_run_ends_with_percentiles_and_totals(tmp_path: Path) -> None:
    arguments = [
        "--engine",
        "simulated",
        "--requests",
        "200",
        "--arrival-cv",
        "5",
        "--speedup",
        "inf",
    ]
    done = demo(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for text in ("p50", "p90", "p99", "queue", "time to first token", "time per output token"):
        assert text in done.stdout
    assert "total: 200 requests" in done.stdout
    assert "(200 finished, 0 failed, 0 expired, 0 cancelled)" in done.stdout


def test_answers_are_printed_whole_with_their_prompts(tmp_path: Path) -> None:
    arguments = [
        "--engine",
        "simulated",
        "--requests",
        "3",
        "--speedup",
        "inf",
        "--max-tokens",
        "60",
    ]
    done = demo(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "What is the capital of France" in done.stdout
    assert done.stdout.count("finished after") == 3
    assert "total: 3 requests" in done.stdout
    assert "180 tokens" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,48,10\n",
        '{"timestamp": 0, "input_length": 700, "output_length": 10, "hash_ids": [0, 1]}\n',
    ],
)
def test_a_trace_is_replayed(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace").write_text(text, encoding="utf-8")
    done = demo(tmp_path, "--trace", "trace", "--speedup", "inf")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 finished" in done.stdout
    assert "10 tokens" in done.stdout


@pytest.mark.parametrize(
    ("mode", "until"),  # a line that is written once Ctrl-C is being watched for
    [(("--arrival-cv", "5"), "requests of"), (("--requests", "3"), "3 prompts")],
)
def test_an_interrupt_cancels_everything_cleanly(
    tmp_path: Path, mode: tuple[str, ...], until: str
) -> None:
    slow = ("--engine", "simulated", "--max-tokens", "5000", "--speedup", "0.5", *mode)
    status, output, errors = interrupted(tmp_path, slow, until, signal.SIGINT)
    assert (status, errors) == (130, "")
    assert "cancelled" in output
    assert "total: " in output


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--requests", ["--requests", "none"]),
        ("--requests", ["--requests", "0"]),
        ("--arrival-cv", ["--arrival-cv", "-1"]),
        ("--rate", ["--rate", "inf"]),
        ("--speedup", ["--speedup", "nan"]),
        ("--engine", ["--engine", "gpt"]),
        ("--model", ["--engine", "noop", "--model", "m.gguf"]),
        ("--rate", ["--trace", "t", "--rate", "1"]),
        ("--arrival-cv", ["--trace", "t", "--arrival-cv", "1"]),
        ("--speedup", ["--speedup", "2"]),
    ],
)
def test_a_wrong_option_is_named(
    capsys: pytest.CaptureFixture[str], option: str, arguments: list[str]
) -> None:
    from inferq.demo.options import parse

    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err


def test_a_wrong_option_ends_the_program_with_2(tmp_path: Path) -> None:
    done = demo(tmp_path, "--speedup", "fast")
    assert done.returncode == 2
    assert "argument --speedup: 'fast'" in done.stderr


@pytest.mark.parametrize("option", ["--model", "--trace"])
def test_a_missing_file_is_one_line_and_1(tmp_path: Path, option: str) -> None:
    if option == "--model":
        pytest.importorskip("xllamacpp")
    done = demo(tmp_path, option, "missing.file")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert "missing.file" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_wrong_setting_is_one_line_and_1(tmp_path: Path) -> None:
    (tmp_path / "inferq.toml").write_text("scheduler_ttl = 0\n", encoding="utf-8")
    done = demo(tmp_path, "--engine", "simulated")
    assert done.returncode == 1
    assert done.stderr.startswith("error: scheduler_ttl=0")
    assert done.stderr.count("\n") == 1
