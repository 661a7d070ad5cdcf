"""Ids: whose message is it, duplicates, adoption and cancelling."""

from __future__ import annotations

import json

import pytest
from celery import Celery

from inferq.cluster.topic import Adoption, Burial, Topic
from inferq.errors import RequestCancelled, RequestFailed
from tests.cluster.support import (
    BASE,
    ORIGIN,
    PREFIX,
    Member,
    Server,
    another,
    ends,
    item,
    letters,
    listen,
    push,
    settings_of,
    submit,
    waiting,
)

STOCK = "0123-reply"


def adopt(node: Member, body: str, request_id: str, origin: str = STOCK) -> str:
    """Adopt a claim."""
    claim = node.claims[body].claim
    [verdict] = node.topic.adopt(node.name, node.inc, [Adoption(claim, request_id, origin)])
    return verdict


def result_of(port: int, request_id: str) -> BaseException:
    """What AsyncResult.get() of a stock producer raises."""
    url = f"redis://127.0.0.1:{port}/0"
    with Celery(broker=url, backend=url, set_as_current=False) as app:
        error = app.AsyncResult(request_id).result
        app.backend.client.close()
    assert isinstance(error, BaseException)
    return error


# A second message with the id of a live request ------------------------------------------------


def test_a_copy_of_a_message_that_runs_is_a_dead_letter_and_harms_nobody(
    topic: Topic, port: int, server: Server
) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    listen(server, "a")
    submit(topic, "a")
    [raw] = server.lrange(BASE, 0, -1)
    node.take()
    for who in (other, node):
        server.lpush(BASE, raw)
        look = who.look()
        assert look.taken == ()
        assert look.more
    assert letters(server) == [("a", "duplicate"), ("a", "duplicate")]
    assert ends(port, "a") == []
    assert topic.cancel("a") == "running"
    assert node.bell(server) == ['["cancel","a"]']


def test_of_two_copies_one_runs(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "a")
    [raw] = server.lrange(BASE, 0, -1)
    server.lpush(BASE, raw)
    assert node.take() == ["a"]
    assert letters(server) == [("a", "duplicate")]
    assert server.hlen(f"{PREFIX}claims:{node.inc}") == 1


def test_a_copy_of_a_message_that_has_ended_does_not_run(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "a")
    [raw] = server.lrange(BASE, 0, -1)
    node.take()
    node.settle("a")
    server.lpush(BASE, raw)
    assert node.take() == []
    assert letters(server) == [("a", "duplicate")]


def test_an_envelope_with_the_id_of_another_request_does_not_touch_it(
    topic: Topic, port: int, server: Server
) -> None:
    node = Member(topic, "n")
    listen(server, "a")
    submit(topic, "a")
    server.rpush(BASE, '{"inferq": [0, 0, 9, 9, 1, 99999999999999, "a"], "body": "forged"}')
    assert node.take() == ["a"]
    assert letters(server) == [("forged", "duplicate")]
    assert ends(port, "a") == []


def test_a_forged_number_overwrites_no_claim(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    submit(topic, "a")
    [mine] = node.look().taken
    for number in (mine.claim, mine.claim + 1, 2 * mine.claim, 999_999_999_999_999):
        server.lpush(BASE, f'{{"inferq": [{number}, 0, 9, 9, 1, 99999999999999, ""], "body": "f"}}')
    assert len(node.look().taken) == 4
    assert server.hlen(f"{PREFIX}claims:{node.inc}") == 5
    assert b'"a"' in mine.raw


def test_a_message_of_a_lost_node_is_no_duplicate(topic: Topic, server: Server) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    submit(topic, "a")
    node.take()
    node.lapse(server)
    topic.beat("o", other.inc)
    assert other.take() == ["a"]
    assert letters(server) == []


# Stock producers' messages ---------------------------------------------------------------------


def test_an_adopted_message_can_be_cancelled_and_settled_by_its_id(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n")
    push(server, "x", "y")
    node.take()
    assert adopt(node, "x", 'id "1"') == "ok"
    assert adopt(node, "x", 'id "1"') == "ok"
    assert adopt(node, "y", 'id "1"') == "duplicate"
    assert topic.cancel('id "1"') == "running"
    assert [json.loads(ring) for ring in node.bell(server)] == [["cancel", 'id "1"']]
    node.claims["x"] = node.claims["x"]._replace(request_id='id "1"')
    node.settle("x")
    assert topic.cancel('id "1"') == "unknown"


def test_an_adopted_message_is_ours_after_recovery(topic: Topic, server: Server) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    push(server, "x")
    node.take()
    assert adopt(node, "x", "id") == "ok"
    node.lapse(server)
    topic.beat("o", other.inc)
    [taken] = other.look().taken
    assert (taken.request_id, taken.attempt, taken.again) == ("id", 1, True)
    assert topic.cancel("id") == "running"


def test_a_message_that_was_sent_again_takes_the_place_of_the_one_that_waits(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n")
    push(server, "x")
    node.take()
    adopt(node, "x", "id")
    node.put_back("x")
    push(server, "again")
    first = server.rpop(BASE)
    assert node.take() == ["again"]
    assert adopt(node, "again", "id", "another origin") == "duplicate"
    assert adopt(node, "again", "id") == "ok"
    server.lpush(BASE, first)
    assert node.take() == []
    assert letters(server) == [("x", "duplicate")]


def test_a_message_that_was_cancelled_while_it_waited_is_not_adopted(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n")
    push(server, "x")
    node.take()
    adopt(node, "x", "id")
    node.put_back("x")
    assert topic.cancel("id") == "queued"
    server.delete(BASE)
    push(server, "again")
    node.take()
    assert adopt(node, "again", "id") == "cancelled"
    assert not server.exists(f"{PREFIX}claims:{node.inc}")
    assert adopt(node, "again", "id") == "unknown"


def test_the_id_of_a_clients_request_is_not_adopted(topic: Topic, server: Server) -> None:
    node = Member(topic, "n")
    push(server, "x")
    assert node.take() == ["x"]
    submit(topic, "id")
    assert adopt(node, "x", "id") == "duplicate"
    assert topic.cancel("id", origin=ORIGIN) == "queued"


def test_a_stock_producer_is_told_by_its_result_that_the_request_failed(
    port: int, server: Server
) -> None:
    with another(settings_of(port, cluster={"max_attempts": 1}, scheduler_ttl=50)) as topic:
        node = Member(topic, "n")
        push(server, "x", "y")
        node.take()
        pubsub = server.pubsub()
        pubsub.subscribe('celery-task-meta-1"é')
        assert pubsub.get_message(timeout=60)
        assert adopt(node, "x", '1"é') == "ok"
        assert adopt(node, "y", "2") == "ok"
        node.put_back("x", started=True)
        topic.bury("n", node.inc, [Burial(node.claims["y"].claim, "malformed", 'not "so"')])
        message = pubsub.get_message(timeout=60)
        pubsub.close()
    meta = json.loads(message["data"])
    assert (meta["status"], meta["task_id"], meta["children"]) == ("FAILURE", '1"é', [])
    assert 0 < server.ttl('celery-task-meta-1"é') <= 50
    failed = result_of(port, '1"é')
    assert isinstance(failed, RequestFailed)
    assert failed.error_code == "attempts"
    assert 'not "so"' in str(result_of(port, "2"))


def test_a_stock_producer_is_told_that_its_waiting_request_was_cancelled(
    topic: Topic, port: int, server: Server
) -> None:
    node = Member(topic, "n")
    push(server, "x")
    node.take()
    adopt(node, "x", "id")
    node.put_back("x")
    assert topic.cancel("id", message="not wanted") == "queued"
    assert isinstance(result_of(port, "id"), RequestCancelled)


# Cancelling ------------------------------------------------------------------------------------


def test_what_is_cancelled_while_it_waits_is_dropped_when_its_turn_comes(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n")
    submit(topic, "a", "b")
    assert topic.cancel("a") == "queued"
    assert node.take(slots=1) == []
    assert node.take() == ["b"]
    assert letters(server) == []


@pytest.mark.parametrize("tell", [True, False])
def test_the_origin_hears_of_it_if_it_is_to(
    topic: Topic, port: int, server: Server, tell: bool
) -> None:
    listen(server, "a")
    submit(topic, "a")
    topic.cancel("a", tell=tell, message="by hand")
    told = [["a", 1_000_000, "cancelled", "cancelled", "by hand"]]
    assert ends(port, "a") == (told if tell else [])


def test_a_request_of_another_origin_is_unknown(topic: Topic) -> None:
    submit(topic, "a")
    assert topic.cancel("a", origin="inferq.0b.2") == "unknown"
    assert topic.cancel("b") == "unknown"
    assert topic.cancel("a", origin=ORIGIN) == "queued"


@pytest.mark.parametrize("how", ["put back", "lost"])
def test_what_is_cancelled_while_it_runs_does_not_wait_again(
    topic: Topic, server: Server, how: str
) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    submit(topic, "a", "b")
    node.take(slots=1)
    assert topic.cancel("a") == "running"
    if how == "lost":
        node.lapse(server)
        assert topic.beat("o", other.inc).recovered == ((node.inc, 0, 0),)
    else:
        node.put_back("a")
    assert waiting(server) == ["b"]
    assert topic.cancel("a") == "unknown"


def test_the_id_of_a_request_that_was_cancelled_while_it_waited_is_free_at_once(
    topic: Topic, server: Server
) -> None:
    node = Member(topic, "n")
    submit(topic, "a")
    topic.cancel("a")
    topic.submit(ORIGIN, "again", [item("a", prompt=99)])
    assert [taken.prompt_tokens for taken in node.look().taken] == [99]
    assert server.hlen(f"{PREFIX}claims:{node.inc}") == 1


# Dead letters ----------------------------------------------------------------------------------


def test_what_is_buried_is_a_dead_letter_and_its_origin_is_told(
    topic: Topic, port: int, server: Server
) -> None:
    node = Member(topic, "n")
    listen(server, "a")
    submit(topic, "a", "b")
    node.take()
    topic.bury("n", node.inc, [Burial(node.claims["a"].claim, "malformed", "why")])
    topic.bury("n", node.inc, [Burial(node.claims["a"].claim, "malformed", "why")])
    [(_, letter)] = server.xrange(f"{PREFIX}dead")
    assert (letter["reason"], letter["detail"], letter["node"]) == ("malformed", "why", "n")
    assert (letter["queue"], letter["attempts"]) == (BASE, "0")
    assert ends(port, "a") == [["a", 0, "error", "malformed", "why"]]
    assert server.hlen(f"{PREFIX}claims:{node.inc}") == 1


def test_dead_letters_are_bounded_in_number_and_size(port: int, server: Server) -> None:
    with another(settings_of(port, cluster={"max_dead_letters": 5})) as topic:
        node = Member(topic, "n")
        server.lpush(BASE, *(["\u00e9" * 70_000] * 300))
        while node.look().more:
            pass
        kept = server.xrange(f"{PREFIX}dead")
        assert len(kept) < 120
        assert all(len(fields["raw"]) <= 65_536 for _, fields in kept)
