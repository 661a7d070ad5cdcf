"""Dead letters: seen, requeued, dropped."""

from __future__ import annotations

import json

import pytest

from inferq.cluster.letters import REQUEUED, Letter, Letters
from inferq.cluster.topic import Burial, Item, Topic
from tests.cluster.support import (
    BASE,
    ORIGIN,
    PREFIX,
    Member,
    Server,
    another,
    ends,
    item,
    listen,
    push,
    settings_of,
    submit,
    waiting,
)

SECRET = "the words of a prompt"


@pytest.fixture
def desk(topic: Topic) -> Letters:
    return Letters(topic)


def message_of(request_id: str) -> bytes:
    """A message as our producers write it, with all that an operator may be told."""
    message = {
        "body": request_id,
        "content-type": "application/x-msgpack",
        "headers": {
            "task": "inferq.prefill",
            "id": request_id,
            "argsrepr": SECRET,
            "kwargsrepr": f"{{'prompt': '{SECRET}'}}",
        },
        "properties": {"correlation_id": request_id, "reply_to": ORIGIN, "priority": 0},
    }
    return json.dumps(message).encode()


def bury(topic: Topic, *ids: str, reason: str = "too_large", step: int = 1) -> Member:
    """Make dead letters of requests."""
    listen_to = Item(b"", "", 1, 600)
    for request_id in ids:
        sent = listen_to._replace(
            message=message_of(request_id), request_id=request_id, step=step, prompt_tokens=12
        )
        assert topic.submit(ORIGIN, request_id, [sent]).accepted == 1
    node = Member(topic, "n")
    look = node.look()
    burials = [Burial(taken.claim, reason, "a sentence") for taken in look.taken]
    topic.bury("n", node.inc, burials)
    return node


def only(desk: Letters) -> Letter:
    [letter] = desk.list()
    return letter


def test_a_letter_says_what_where_and_why(topic: Topic, desk: Letters, server: Server) -> None:
    bury(topic, "a")
    letter = only(desk)
    assert (letter.request_id, letter.queue, letter.reason, letter.detail) == (
        "a",
        BASE,
        "too_large",
        "a sentence",
    )
    assert (letter.node, letter.attempts, letter.whole) == ("n", 0, True)
    assert letter.bytes == len(server.xrange(f"{PREFIX}dead")[0][1]["raw"])
    assert letter.at == pytest.approx(float(server.time()[0]), abs=60)
    assert letter.text == "prompt: 12 tokens, max_tokens: 0"
    assert desk.count() == 1


def test_letters_come_newest_first_in_pages(topic: Topic, desk: Letters) -> None:
    bury(topic, *"abcde")
    first = desk.list(2)
    rest = desk.list(10, before=first[-1].id)
    assert [letter.request_id for letter in (*first, *rest)] == list("edcba")


def test_a_letter_is_shown_without_the_words_of_its_prompt(topic: Topic, desk: Letters) -> None:
    bury(topic, "a")
    letter = desk.show(only(desk).id)
    assert letter is not None
    assert json.loads(letter.text)["task"] == "inferq.prefill"
    assert SECRET not in letter.text
    raw = desk.show(letter.id, raw=True)
    assert raw is not None
    assert SECRET in raw.text


@pytest.mark.parametrize("letter_id", ["", "x", "1", "1-1", "99999999999999999999-0", "1-1\n", "-"])
def test_what_is_no_letter_is_unknown(desk: Letters, letter_id: str) -> None:
    assert desk.show(letter_id) is None
    assert desk.drop(letter_id) is False
    assert letter_id == "" or desk.list(before=letter_id) == []
    assert desk.requeue(letter_id) == "there is no such letter (any more)"


def test_a_dropped_letter_is_gone(topic: Topic, desk: Letters) -> None:
    bury(topic, "a", "b")
    newest, oldest = desk.list()
    assert desk.drop(newest.id)
    assert not desk.drop(newest.id)
    assert [letter.id for letter in desk.list()] == [oldest.id]


@pytest.mark.parametrize("step", [1, 3])
def test_a_requeued_letter_runs_as_if_it_were_new(
    topic: Topic, desk: Letters, server: Server, step: int
) -> None:
    listen(server, "a")
    node = bury(topic, "a", step=step)
    submit(topic, "before", step=step)
    assert desk.requeue(only(desk).id) == REQUEUED
    assert desk.list() == []
    [first, taken] = node.look().taken
    assert first.request_id == "before"
    assert (taken.request_id, taken.attempt, taken.again) == ("a", 0, False)
    assert taken.deadline_ms == taken.submitted_ms + 900_000
    assert topic.cancel("a") == "running"


def test_an_idle_node_hears_of_a_requeued_letter(
    topic: Topic, desk: Letters, server: Server
) -> None:
    listen(server, "a")
    node = bury(topic, "a", step=2)
    assert node.look().parked
    node.bell(server)
    assert desk.requeue(only(desk).id) == REQUEUED
    assert node.bell(server) == ['["look"]']


def test_a_letter_from_a_nodes_own_queue_goes_to_the_shared_one(
    topic: Topic, desk: Letters, server: Server
) -> None:
    node = Member(topic, "n")
    push(server, "big", queue=f"{BASE}.n", step=4)
    with another(settings_of(server.connection_pool.connection_kwargs["port"])) as small:
        tight = small.settings.model_copy(
            update={"limits": small.settings.limits.model_copy(update={"max_message_bytes": 5})}
        )
        Member.look(_as(node, Topic(tight, small.link)))
    letter = only(desk)
    assert letter.queue == f"{BASE}.n\x06\x169"
    assert desk.requeue(letter.id) == REQUEUED
    assert waiting(server, step=4) == ["big"]


def _as(node: Member, topic: Topic) -> Member:
    node.topic = topic
    return node


def test_a_letter_whose_id_is_live_stays(topic: Topic, desk: Letters, server: Server) -> None:
    listen(server, "a")
    bury(topic, "a")
    submit(topic, "a")
    letter = only(desk)
    assert desk.requeue(letter.id) == "a live request has its id"
    assert only(desk) == letter
    assert waiting(server) == ["a"]


def test_a_letter_whose_producer_is_gone_stays(topic: Topic, desk: Letters) -> None:
    bury(topic, "a")
    assert desk.requeue(only(desk).id) == "its producer is gone: nobody would read the answer"
    assert desk.count() == 1


def test_a_message_that_is_no_json_stays(topic: Topic, desk: Letters, server: Server) -> None:
    server.lpush(BASE, "\x00 not json \xff" * 10)
    Member(topic, "n").look()
    letter = only(desk)
    assert (letter.reason, letter.request_id, letter.text) == ("malformed", "", "")
    assert desk.requeue(letter.id) == "it is no JSON object: no node can read it"
    shown = desk.show(letter.id)
    assert shown is not None
    assert shown.text.startswith("no JSON")


def test_a_message_that_was_cut_stays(topic: Topic, desk: Letters, server: Server) -> None:
    server.lpush(BASE, '{"body": "' + "x" * 17_000_000 + '"}')
    Member(topic, "n").look()
    letter = only(desk)
    assert not letter.whole
    assert letter.bytes > 17_000_000
    assert desk.requeue(letter.id) == "only the beginning of the message was kept"


def test_a_full_queue_takes_no_letters(topic: Topic, desk: Letters, server: Server) -> None:
    listen(server, "a")
    bury(topic, "a")
    submit(topic, "b")
    port = server.connection_pool.connection_kwargs["port"]
    with another(settings_of(port, cluster={"max_waiting": 1})) as full:
        verdict = Letters(full).requeue(only(desk).id)
    assert verdict == "its queue is full (cluster.max_waiting)"


@pytest.mark.parametrize(
    "fields",
    [
        {"raw": "{}"},
        {"raw": '{"inferq": [1, 2, 3, 4, 5, 6, "%FF"], }', "bytes": "x", "attempts": "-1"},
        {"detail": "d" * 100_000, "queue": "elsewhere", "bytes": "99999999999999999999"},
        {"raw": "[" * 60_000, "bytes": "60000", "at_ms": "never"},
    ],
)
def test_a_letter_that_makes_no_sense_is_a_letter(
    desk: Letters, server: Server, fields: dict[str, str]
) -> None:
    name = server.xadd(f"{PREFIX}dead", fields)
    assert only(desk).id == name
    assert len(only(desk).detail) <= 1024
    assert desk.show(name) is not None
    assert desk.requeue(name) != REQUEUED
    assert desk.drop(name)


def test_a_stock_producers_letter_is_requeued(
    topic: Topic, desk: Letters, server: Server, port: int
) -> None:
    raw = message_of("s").replace(ORIGIN.encode(), b"a-stock-reply")
    server.lpush(BASE, raw)
    node = Member(topic, "n")
    [taken] = node.look().taken
    topic.bury("n", node.inc, [Burial(taken.claim, "rejected", "a sentence")])
    letter = only(desk)
    assert letter.request_id == "s"
    assert desk.requeue(letter.id) == REQUEUED
    [again] = node.look().taken
    assert (again.attempt, again.again) == (0, False)
    assert ends(port, "s") == []


def test_purging_a_list_tells_its_producers(topic: Topic, server: Server, port: int) -> None:
    listen(server, "a", "b")
    submit(topic, "a", "b", "c")
    assert topic.purge(BASE, 2, "the topic was reset") == 2
    assert waiting(server) == ["c"]
    [told] = ends(port, "a")
    assert told[2:] == ["cancelled", "cancelled", "the topic was reset"]
    assert topic.cancel("a") == "unknown"
    assert topic.submit(ORIGIN, "new", [item("a")]).accepted == 1


def test_purging_a_stock_producers_message_stores_its_end(topic: Topic, server: Server) -> None:
    server.lpush(BASE, message_of("s").replace(ORIGIN.encode(), b"a-stock-reply"))
    assert topic.purge(BASE, 10, "the topic was reset") == 1
    stored = json.loads(server.get("celery-task-meta-s"))
    assert stored["result"]["exc_type"] == "RequestCancelled"


def test_purging_leaves_alone_the_live_request_whose_id_a_message_copies(
    topic: Topic, server: Server, port: int
) -> None:
    listen(server, "a")
    submit(topic, "a")
    [raw] = server.lrange(BASE, 0, -1)
    node = Member(topic, "n")
    node.take()
    server.lpush(BASE, raw.replace(", 0, 10, 10, ", ", 0, 10, 10, 7"))
    assert topic.purge(BASE, 10, "the topic was reset") == 1
    assert ends(port, "a") == []
    assert topic.cancel("a") == "running"
