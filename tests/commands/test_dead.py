"""``dead``: list, show, requeue, drop."""

from __future__ import annotations

from typing import Any

import pytest

from inferq import Client
from inferq.cluster.topic import Burial
from tests.commands.conftest import Ask
from tests.commands.test_looking import HOSTILE, is_harmless
from tests.fake_node import FakeNode


@pytest.fixture
def letters(ask: Ask, node: FakeNode, producer: Client) -> list[dict[str, Any]]:
    """Three dead letters, the newest first."""
    for name in ("a", "b", "c"):
        producer.submit(prompt="the words of a prompt", request_id=name)
        [job] = node.take_exactly(1)
        burial = Burial(job.taken.claim, "rejected", f"because of {name}")
        node.topic.bury(node.name, node.inc, [burial])
    listed: list[dict[str, Any]] = ask("dead", "list", "--json").json
    return listed


def test_without_letters_it_says_so(ask: Ask, server: Any) -> None:
    assert ask("dead", "list") == (0, "no dead letters\n", "")
    assert ask("dead", "drop", "--all") == (0, "", "")


def test_letters_are_listed_newest_first(ask: Ask, letters: list[dict[str, Any]]) -> None:
    assert [letter["request_id"] for letter in letters] == ["c", "b", "a"]
    lines = ask("dead", "list", "--count", "2").out.splitlines()
    assert len(lines) == 3
    assert "because of c" in lines[1]
    rest = ask("dead", "list", "--before", letters[1]["id"], "--json").json
    assert [letter["request_id"] for letter in rest] == ["a"]


def test_a_letter_is_shown_without_its_prompt(ask: Ask, letters: list[dict[str, Any]]) -> None:
    shown = ask("dead", "show", letters[0]["id"])
    assert shown.code == 0
    assert "because of c" in shown.out
    assert "prompt: 21 characters" in shown.out
    assert ask("dead", "show", letters[0]["id"], "--json").json["request_id"] == "c"
    assert '"body": ' not in shown.out
    assert '"body": ' in ask("dead", "show", letters[0]["id"], "--raw").out


def test_letters_are_requeued(ask: Ask, letters: list[dict[str, Any]], node: FakeNode) -> None:
    assert ask("dead", "requeue", letters[2]["id"]).out == f"{letters[2]['id']}: requeued\n"
    outcomes = ask("dead", "requeue", "--all", "--json").json
    assert set(outcomes.values()) == {"requeued"}
    assert [job.request_id for job in node.take_exactly(3)] == ["a", "b", "c"]
    assert ask("dead", "list", "--json").json == []


def test_letters_are_dropped(ask: Ask, letters: list[dict[str, Any]]) -> None:
    answer = ask("dead", "drop", letters[0]["id"], "7-7")
    assert answer.code == 1
    assert answer.out.splitlines() == [
        f"{letters[0]['id']}: dropped",
        "7-7: there is no such letter",
    ]
    assert ask("dead", "drop", "--all").code == 0
    assert ask("dead", "list", "--json").json == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show", "x"), 1),
        (("requeue", "x"), 1),
        (("requeue",), 2),
        (("drop",), 2),
        (("drop", "1-1", "--all"), 2),
        (("list", "--count", "0"), 2),
    ],
)
def test_what_is_no_letter_is_refused(
    ask: Ask, server: Any, arguments: tuple[str, ...], code: int
) -> None:
    assert ask("dead", *arguments).code == code


def test_a_hostile_letter_does_nothing_to_a_terminal(ask: Ask, store: Any, server: Any) -> None:
    fields = dict.fromkeys(("queue", "reason", "detail", "node", "raw", "attempts"), HOSTILE)
    letter = store.xadd("inferq:default:dead", fields)
    assert is_harmless(ask("dead", "list").out)
    for option in ((), ("--raw",), ("--json",)):
        assert is_harmless(ask("dead", "show", letter, *option).out.replace("\t", ""))
    assert is_harmless(ask("dead", "requeue", letter).out)
