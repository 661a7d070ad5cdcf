"""``nodes`` and ``queues``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferq import Client
from tests.commands.conftest import Ask
from tests.fake_node import FakeNode

#: A name that would clear the terminal, colour it, set its title, and reverse the line.
HOSTILE = "n\x1b[2J\x1b[31m\x1b]0;title\x07[bold]x[/bold]\u202e\r\n@here"


def is_harmless(text: str) -> bool:
    """Whether a terminal only shows it."""
    return all(char.isprintable() or char == "\n" for char in text)


def test_an_empty_topic_has_no_nodes(ask: Ask, server: Any) -> None:
    assert ask("nodes") == (0, "topic default has no nodes\n", "")
    assert ask("nodes", "--json").json == []


def test_a_node_is_shown_with_its_numbers(ask: Ask, node: FakeNode, producer: Client) -> None:
    producer.submit_many({"prompt": "p"} for _ in range(3))
    node.take_exactly(3)
    answer = ask("nodes")
    head, row = answer.out.splitlines()
    assert answer.code == 0
    assert head.split()[:3] == ["node", "role", "state"]
    assert row.split()[:3] == ["n1@here", "mixed", "ready"]
    assert "10/100" in row
    [shown] = ask("nodes", "--json").json
    assert (shown["name"], shown["claims"], shown["load"], shown["live"]) == ("n1@here", 3, 3, True)


def test_a_node_whose_lease_is_over_is_lost(ask: Ask, node: FakeNode, store: Any) -> None:
    store.zadd("inferq:default:leases", {node.inc: 1})
    assert ask("nodes").out.splitlines()[1].split()[2] == "lost"


def test_queues_are_shown_by_priority(ask: Ask, producer: Client, store: Any) -> None:
    producer.submit_many({"prompt": "p", "priority": n} for n in (0, 9, 9))
    store.lpush("default.decode.gone@host", "{}")
    lines = [line.split() for line in ask("queues").out.splitlines()]
    assert lines[1][:6] == ["default.prefill", "3", "1", "0", "0", "2"]
    assert lines[3][:2] == ["default.decode.gone@host", "1"]
    assert lines[3][-1] == "orphaned"
    shown = ask("queues", "--json").json
    assert [queue["length"] for queue in shown] == [3, 0, 1]


def test_another_topic_is_named_by_an_option(ask: Ask, node: FakeNode) -> None:
    assert ask("nodes", "--topic", "other").out == "topic other has no nodes\n"
    assert ask("nodes", "--setting", "scheduler_topic=other").out.startswith("topic other")


@pytest.mark.parametrize("command", ["nodes", "queues"])
def test_what_others_have_written_does_nothing_to_a_terminal(
    ask: Ask, store: Any, server: Any, command: str
) -> None:
    record = {"role": HOSTILE, "host": HOSTILE, "engine": HOSTILE, "version": HOSTILE}
    store.hset("inferq:default:nodes", HOSTILE, json.dumps(record))
    store.hset("inferq:default:states", HOSTILE, HOSTILE)
    store.lpush(f"default.prefill.{HOSTILE}", "{}")
    answer = ask(command)
    assert answer.code == 0
    assert is_harmless(answer.out)
    assert "\\x1b[2J" in answer.out
    as_json = ask(command, "--json")
    assert is_harmless(as_json.out)
    assert HOSTILE in json.dumps(as_json.json, ensure_ascii=False) or any(
        HOSTILE in str(value) for row in as_json.json for value in row.values()
    )


def test_a_long_name_is_cut(ask: Ask, store: Any, server: Any) -> None:
    store.hset("inferq:default:nodes", "n" * 5000, "{}")
    assert max(map(len, ask("nodes").out.splitlines())) < 500


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--topic", "a b"], "scheduler_topic='a b'"),
        (["--setting", "nonsense=1"], "nonsense: unknown setting"),
        (["--setting", "cluster.lease_ttl_s"], "is no NAME=VALUE"),
        (["--setting", "cluster.lease_ttl_s=x"], "cluster.lease_ttl_s='x'"),
        (["--setting", "scheduler_name=local"], "allowed here are global and splitwise"),
    ],
)
def test_a_wrong_option_is_named(ask: Ask, server: Any, arguments: list[str], error: str) -> None:
    answer = ask("nodes", *arguments)
    assert answer.code == 2
    assert error in answer.err
    assert answer.err.count("\n") == 1
