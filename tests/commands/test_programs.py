"""The programs: ``inferq`` and ``celery -A inferq``, as installed."""

from __future__ import annotations

import json
import signal
from importlib.metadata import entry_points
from typing import Any

from celery.bin.celery import celery

from inferq.commands import main
from inferq.messages import Output
from tests.commands.terminal import CELERY, INFERQ, Terminal, environment, run
from tests.fake_node import FakeNode
from tests.redis_server import RedisServer
from tests.support import wait_until


def test_celery_knows_all_our_commands() -> None:
    for command in main.CELERY:
        assert celery.commands[command.name or ""] is command, command.name


def test_the_script_is_declared() -> None:
    [script] = entry_points(group="console_scripts", name="inferq")
    assert script.load() is main.main


def test_both_programs_answer_alike(server: RedisServer, node: FakeNode) -> None:
    env = environment(server.port)
    answers = [run((*program, "nodes", "--json"), env) for program in (INFERQ, CELERY)]
    for answer in answers:
        assert (answer.returncode, answer.stderr) == (0, "")
        assert json.loads(answer.stdout)[0]["name"] == "n1@here"


def test_a_request_is_found_by_celery_under_another_name(server: RedisServer) -> None:
    answer = run((*CELERY, "request", "x", "--json"), environment(server.port))
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["state"] == "unknown"


def test_celery_tells_failures_alike(server: RedisServer) -> None:
    env = environment(1, INFERQ_SCHEDULER_PASSWORD="the-secret-word")
    for program in (INFERQ, CELERY):
        answer = run((*program, "queues"), env)
        assert answer.returncode == 2
        assert answer.stderr.startswith("inferq: Redis at 127.0.0.1:1/0 does not answer")
        assert "the-secret-word" not in answer.stderr


def test_reset_asks_at_a_terminal(server: RedisServer, store: Any) -> None:
    store.lpush("default.prefill", "{}")
    with Terminal((*INFERQ, "reset"), environment(server.port)) as terminal:
        terminal.read_until("cancel 1 requests that wait", "[y/N]")
        terminal.type("n\n")
        assert terminal.wait() == 1
    assert store.llen("default.prefill") == 1
    with Terminal((*INFERQ, "reset"), environment(server.port)) as terminal:
        terminal.read_until("[y/N]")
        terminal.type("y\n")
        assert terminal.wait() == 0
    assert store.llen("default.prefill") == 0


def test_ctrl_c_cancels_what_was_submitted(server: RedisServer, store: Any) -> None:
    program = (*INFERQ, "submit", "p", "--request-id", "a")
    with Terminal(program, environment(server.port)) as terminal:
        wait_until(lambda: store.llen("default.prefill") == 1)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 130
        assert "cancelled" in terminal.text
        assert "Traceback" not in terminal.text
    assert run((*INFERQ, "status", "a", "--json"), environment(server.port)).stdout.count(
        '"state": "cancelled"'
    )


def test_without_rich_tables_are_plain(server: RedisServer, node: FakeNode) -> None:
    blocked = "import sys; sys.modules['rich'] = None; " + INFERQ[2]
    with Terminal((INFERQ[0], "-c", blocked, "nodes"), environment(server.port)) as terminal:
        assert terminal.wait() == 0
    assert "n1@here" in terminal.text
    assert "\x1b" not in terminal.text


def test_the_text_of_an_answer_does_nothing_to_a_terminal(
    server: RedisServer, node: FakeNode, store: Any
) -> None:
    program = (*INFERQ, "submit", "p")
    with Terminal(program, environment(server.port)) as terminal:
        wait_until(lambda: store.llen("default.prefill") == 1)
        [job] = node.take_exactly(1)
        node.send(
            job,
            [
                Output(
                    job.request_id,
                    text="\x1b]0;x\x07 a\nb",
                    token_ids=(1,),
                    finished=True,
                    finish_reason="stop",
                )
            ],
        )
        assert terminal.wait() == 0
    assert terminal.text.replace("\r\n", "\n") == "\\x1b]0;x\\x07 a\nb\n"
