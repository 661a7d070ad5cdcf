"""``submit``, ``cancel`` and ``status``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from inferq import Client, RequestCancelled
from inferq.cluster.keys import quoted
from inferq.cluster.stories import pack_story
from inferq.cluster.topic import Group, Settle
from inferq.messages import Crossing, Output, Timings
from tests.commands.conftest import Ask
from tests.fake_node import FakeNode
from tests.support import LONG_S


@pytest.fixture
def serving(node: FakeNode) -> Iterator[list[dict[str, Any]]]:
    """A node that answers whatever comes; what it was asked."""
    asked: list[dict[str, Any]] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.wait(0.01):
            for job in node.take():
                asked.append(job.fields)
                node.answer(job)

    thread = threading.Thread(target=serve)
    thread.start()
    yield asked
    stop.set()
    thread.join()


def test_an_answer_is_printed(ask: Ask, serving: list[dict[str, Any]]) -> None:
    assert ask("submit", "a prompt") == (0, "1 2 3 \n", "")
    assert serving[0]["prompt"] == "a prompt"


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_a_prompt_comes_from_standard_input(
    ask: Ask, serving: list[dict[str, Any]], arguments: tuple[str, ...]
) -> None:
    assert ask("submit", *arguments, given="a prompt\nof lines").code == 0
    assert serving[0]["prompt"] == "a prompt\nof lines"


def test_options_are_fields_of_the_request(ask: Ask, serving: list[dict[str, Any]]) -> None:
    options = (
        "--max-tokens=5 --temperature=0.5 --top-p=0.25 --top-k=3 --seed=7 --stop=a --stop=b "
        "--request-id=mine --chat"
    )
    answer = ask("submit", "a prompt", *options.split(), "--json").json
    assert (answer["request_id"], answer["text"], answer["finish_reason"]) == (
        "mine",
        "1 2 3 ",
        "stop",
    )
    assert answer["token_ids"] == [1, 2, 3]
    assert set(answer["timings"]) == {"queue_s", "ttft_s", "tpot_s", "e2e_s"}
    [fields] = serving
    assert fields["messages"] == [{"role": "user", "content": "a prompt"}]
    given = [fields[n] for n in ("max_tokens", "temperature", "top_p", "top_k", "seed")]
    assert given == [5, 0.5, 0.25, 3, 7]
    assert list(fields["stop"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "given", "error"),
    [
        (["p", "--max-tokens", "0"], "", "max_tokens: "),
        (["p", "--priority", "10"], "", "priority: "),
        (["p", "--temperature", "nan"], "", "temperature: "),
        (["p", "--request-id", "a b"], "", "request_id: "),
        ([""], "", "prompt: "),
        ([], b"\xff\xfe", "prompt: standard input is no text in UTF-8"),
        ([], "", "prompt: "),
    ],
)
def test_a_wrong_field_is_named(
    ask: Ask, server: Any, arguments: list[str], given: str | bytes, error: str
) -> None:
    answer = ask("submit", *arguments, given=given)
    assert (answer.code, answer.out) == (2, "")
    assert error in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_request_that_is_cancelled_elsewhere_ends_with_an_error(
    ask: Ask, cluster: Any, store: Any
) -> None:
    done: list[Any] = []
    thread = threading.Thread(
        target=lambda: done.append(ask("submit", "p", "--request-id=a", "--json"))
    )
    with Client(cluster) as other:
        thread.start()
        other_than_unknown = threading.Event()
        while not store.exists("inferq:default:req:a"):
            assert not other_than_unknown.wait(0.01)
        other.cancel("a")
        thread.join(LONG_S)
    [answer] = done
    assert answer.code == 1
    assert (answer.json["request_id"], answer.json["code"]) == ("a", "cancelled")


def test_cancel_ends_a_request_and_tells_its_producer(
    ask: Ask, producer: Client, node: FakeNode
) -> None:
    handle = producer.submit(prompt="p", request_id="a")
    assert ask("cancel", "a") == (0, "a: cancelled; it was queued\n", "")
    with pytest.raises(RequestCancelled, match="from the command line"):
        handle.result(LONG_S)
    assert node.take() == []
    assert ask("cancel", "a", "--json").json == {"request_id": "a", "was": "unknown"}
    answer = ask("cancel", "a")
    assert (answer.code, answer.out) == (1, "a: no live request has this id\n")


def test_status_says_where_a_request_is(ask: Ask, producer: Client, node: FakeNode) -> None:
    producer.submit(prompt="p", request_id="a")
    assert ask("status", "a") == (0, "a: queued for prefill\n", "")
    node.take_exactly(1)
    assert ask("status", "a").out == "a: running in prefill at n1@here\n"
    assert ask("status", "b").code == 1
    assert ask("status", "b", "--json").json["state"] == "unknown"


def test_status_tells_how_a_request_ended(ask: Ask, producer: Client, node: FakeNode) -> None:
    producer.submit(prompt="p", request_id="a")
    [job] = node.take_exactly(1)
    last = Output(
        "a",
        index=4,
        token_ids=(5,),
        finished=True,
        finish_reason="length",
        timings=Timings(1.0, 2.0, 3.0),
        node=node.name,
        crossing=Crossing("p1@\x1b[31mthere", "tcp", 2048, 0.5),
    )
    settle = Settle(job.taken.claim, quoted("a"), story=pack_story(last))
    node.topic.emit(node.name, node.inc, [Group("", b"", [settle])])
    answer = ask("status", "a")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "a: ended",
        "  ended with length after 5 tokens, attempt 0, at n1@here",
        "  waited 1.0 s, prefill 2.0 s, decode 3.0 s",
        "  prefilled at p1@\\x1b[31mthere; 2.0 KiB of KV cache by tcp in 0.5 s",
    ]
    assert ask("status", "a", "--json").json["story"]["kv_bytes"] == 2048
