"""``top``: at a terminal, without one, without rich, and while Redis is away."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest

from inferq import Client
from tests.commands.conftest import Ask
from tests.commands.terminal import INFERQ, Terminal, environment, run
from tests.commands.test_looking import HOSTILE, is_harmless
from tests.fake_node import FakeNode
from tests.redis_server import RedisServer

WITHOUT_RICH = (
    INFERQ[0],
    "-c",
    "import sys; sys.modules['rich'] = None; from inferq.commands.main import main; main()",
)


def test_frames_are_counted(ask: Ask, node: FakeNode, producer: Client) -> None:
    producer.submit(prompt="p")
    answer = ask("top", "--count", "2", "--interval", "0.1")
    assert answer.code == 0
    titles = [line for line in answer.out.splitlines() if line.startswith("default ")]
    assert len(titles) == 2
    assert "1/1 nodes live  1 waiting  0 running" in titles[0]
    assert answer.out.count("n1@here") == 2
    assert is_harmless(answer.out)


def test_frames_are_lines_of_json(ask: Ask, node: FakeNode) -> None:
    lines = ask("top", "--count", "2", "--interval", "0.1", "--json").out.splitlines()
    frames = [json.loads(line) for line in lines]
    assert [frame["nodes"][0]["name"] for frame in frames] == ["n1@here"] * 2
    assert frames[0]["at"] < frames[1]["at"]


@pytest.mark.parametrize("arguments", [("--interval", "0"), ("--interval", "x"), ("--count", "0")])
def test_wrong_options_are_refused(ask: Ask, server: Any, arguments: tuple[str, ...]) -> None:
    assert ask("top", *arguments).code == 2


@pytest.mark.parametrize("program", [INFERQ, WITHOUT_RICH], ids=["rich", "plain"])
def test_it_ends_with_q(server: RedisServer, node: FakeNode, program: tuple[str, ...]) -> None:
    with Terminal((*program, "top", "--interval", "0.2"), environment(server.port)) as terminal:
        terminal.read_until("n1@here", "default.prefill")
        terminal.type("xq")
        assert terminal.wait() == 0


def test_it_ends_with_ctrl_c(server: RedisServer, node: FakeNode) -> None:
    with Terminal((*INFERQ, "top"), environment(server.port)) as terminal:
        terminal.read_until("n1@here")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize("program", [INFERQ, WITHOUT_RICH], ids=["rich", "plain"])
@pytest.mark.parametrize("command", ["top", "nodes"])
def test_hostile_names_do_nothing_to_a_terminal(
    server: RedisServer, store: Any, program: tuple[str, ...], command: str
) -> None:
    store.hset("inferq:default:nodes", HOSTILE, json.dumps({"role": HOSTILE}))
    options = ("--count", "1") if command == "top" else ()
    with Terminal((*program, command, *options), environment(server.port)) as terminal:
        assert terminal.wait() == 0
    assert "\x1b]0;title" not in terminal.text
    assert "\u202e" not in terminal.text
    assert "[bold]" in _without_styles(terminal.text)


def _without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_it_goes_on_while_redis_is_away() -> None:
    own = RedisServer()
    try:
        env = environment(own.port, INFERQ_CLUSTER__REDIS_TIMEOUT_S="1")
        with Terminal((*INFERQ, "top", "--interval", "0.1"), env) as terminal:
            terminal.read_until("0/0 nodes live")
            own.stop()
            terminal.read_until("does not answer")
            own.start()
            terminal.text = ""
            terminal.read_until("0/0 nodes live")
            terminal.type("q")
            assert terminal.wait() == 0
    finally:
        own.stop()


def test_a_pipe_that_is_closed_ends_it_in_silence(server: RedisServer) -> None:
    shell = ["sh", "-c", f"{INFERQ[0]} -c '{INFERQ[2]}' top --interval 0.1 | head -1"]
    done = run(shell, environment(server.port))
    assert done.stdout.startswith("default ")
    assert done.stderr == ""
