"""Whatever anybody puts into a queue, no script fails half way and nothing is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from inferq.cluster.keys import Envelope, quoted, shard_of, shards_of, strip_envelope, unquoted
from inferq.cluster.topic import Adoption, Burial, Return, Taken, Topic
from inferq.settings import Settings
from tests.cluster.support import (
    BASE,
    LARGEST,
    ORIGIN,
    PREFIX,
    Member,
    Server,
    ends,
    item,
    listen,
    push,
    settings_of,
    submit,
)

MANY = examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
#: Request ids as a producer may choose them, and worse.
IDS = st.text(min_size=1, max_size=30)
NUMBERS = st.integers(0, 10**20).map(str)
FORGED = st.builds(
    lambda numbers, name, rest: f'{{"inferq": [{", ".join(numbers)}, "{name}"], '.encode() + rest,
    st.lists(NUMBERS, min_size=5, max_size=7),
    st.text(alphabet='ab%2F\n\\é"', max_size=6),
    st.binary(max_size=20),
)
ANY_BYTES = st.binary(max_size=40) | FORGED | st.binary(max_size=20).map(lambda b: b"{" + b)


@MANY
@given(st.lists(ANY_BYTES, max_size=8))
@example([b"", b"{", b"{}", b"null", b'{"inferq": [1, 1, 1, 1, 1, 1, "'])
def test_every_message_is_claimed_or_a_dead_letter_and_comes_back_as_it_was(
    topic: Topic, server: Server, messages: list[bytes]
) -> None:
    server.flushall()
    node, other = Member(topic, "n"), Member(topic, "o")
    for message in messages:
        server.lpush(BASE, message)
    _look_until_all_is_taken(node)
    dead = server.xlen(f"{PREFIX}dead")
    assert server.hlen(f"{PREFIX}claims:{node.inc}") + dead == len(messages)
    node.lapse(server)
    [(_, back, lost)] = topic.beat("o", other.inc).recovered
    assert back + lost + dead == len(messages)
    claims = _look_until_all_is_taken(other)
    assert {strip_envelope(taken.raw) for taken in claims} <= {
        strip_envelope(message) for message in messages
    }
    topic.put_back("o", other.inc, [Return(taken.claim, True) for taken in claims])


def _look_until_all_is_taken(node: Member) -> list[Taken]:
    taken: list[Taken] = []
    while True:
        look = node.look(longest=10**18, blocks=10**18, tokens=10**18, total_blocks=10**18)
        taken += look.taken
        if not look.more:
            return taken


@MANY
@given(IDS, st.text(max_size=20), st.text(max_size=20))
def test_ids_origins_and_texts_of_any_characters(
    topic: Topic, server: Server, request_id: str, origin: str, text: str
) -> None:
    server.flushall()
    node = Member(topic, "n")
    push(server, "x")
    node.take()
    claim = node.claims["x"].claim
    for _ in range(2):
        assert topic.adopt("n", node.inc, [Adoption(claim, request_id, origin)]) == ["ok"]
    assert topic.cancel(request_id, origin=origin + "x") == "unknown"
    topic.put_back("n", node.inc, [Return(claim)])
    [taken] = node.look().taken
    assert taken.request_id == request_id
    assert topic.cancel(request_id, message=text, tell=True) == "running"
    topic.bury("n", node.inc, [Burial(taken.claim, text, text)])
    assert topic.cancel(request_id) == "unknown"


@pytest.mark.parametrize("bad", ["\ud800", "x\udfffy"])
def test_texts_that_are_no_unicode(topic: Topic, server: Server, bad: str) -> None:
    node = Member(topic, "n")
    push(server, "x")
    node.take()
    claim = node.claims["x"].claim
    assert topic.adopt("n", node.inc, [Adoption(claim, bad, bad)]) == ["ok"]
    assert topic.cancel(bad) == "running"
    topic.bury("n", node.inc, [Burial(claim, "malformed", bad)])
    assert unquoted(quoted(bad)) == bad


@MANY
@given(IDS)
def test_quoting_is_reversible_and_safe(request_id: str) -> None:
    assert unquoted(quoted(request_id)) == request_id
    assert quoted(request_id).isascii()
    assert not set(quoted(request_id)) & set("\"\\ \n'")


@MANY
@given(
    IDS,
    st.sampled_from(["inferq.0a.1", "inferq.0a.3", "inferq.AF.16"])
    | st.from_regex(r"inferq\.[0-9a-g.]{0,4}\.?[0-9]{0,4}"),
)
def test_python_and_lua_agree_on_the_stream_of_a_request(
    topic: Topic, port: int, server: Server, request_id: str, origin: str
) -> None:
    server.flushall()
    topic.submit(origin, "t", [item(request_id)])
    if shards_of(origin):
        listen(server, request_id, origin=origin)
    topic.cancel(request_id, tell=True)
    if shards_of(origin):
        assert len(ends(port, request_id, origin)) == 1
        assert 0 <= shard_of(request_id, shards_of(origin)) < shards_of(origin)
    else:
        assert not server.keys(f"{PREFIX}out:*")


def test_a_message_larger_than_is_read_is_a_dead_letter_and_its_origin_told(
    port: int, server: Server, topic: Topic
) -> None:
    small = settings_of(port, limits={"max_message_bytes": 1024})
    listen(server, "a")
    submit(topic, "a")
    raw = server.rpop(BASE)
    server.lpush(BASE, raw + " " * 2000, '{"body": "b"}')
    node = Member(Topic(small, topic.link), "n")
    look = node.look()
    assert [taken.request_id for taken in look.taken] == [""]
    assert look.more
    [[_, attempt, reason, code, message]] = ends(port, "a")
    assert (attempt, reason, code) == (0, "error", "too_large")
    assert "limits.max_message_bytes" in message


def test_an_envelope_is_written_as_it_is_read() -> None:
    envelope = Envelope(1, 2, 3, 4, 5, 6, quoted('a"b'))
    assert strip_envelope(f"{envelope.serialize()}rest".encode()) == b"{rest"
    assert strip_envelope(b'{"body": 1}') == b'{"body": 1}'


def _shape(key: str) -> str:
    """A key without the fencing token, which no two incarnations share."""
    return re.sub(r"#\d+", "#", key)


def test_topics_share_nothing(settings: Settings, topic: Topic, server: Server) -> None:
    other = Topic(settings.model_copy(update={"scheduler_topic": "default-2"}), topic.link)
    _live_a_life(topic, server)
    mine = set(server.keys())
    assert all(key.startswith(("inferq:default:", "default.prefill")) for key in mine)
    snapshot = {key: server.dump(key) for key in _untimed(mine)}
    _live_a_life(other, server)
    theirs = set(server.keys()) - mine
    assert all(key.startswith(("inferq:default-2:", "default-2.prefill")) for key in theirs)
    assert {key: server.dump(key) for key in _untimed(mine)} == snapshot
    assert {_shape(key.replace("default-2", "default")) for key in theirs} == set(map(_shape, mine))


def _untimed(keys: set[str]) -> set[str]:
    return {key for key in keys if not key.startswith("inferq:default:req:")}


def _live_a_life(topic: Topic, server: Server) -> None:
    node, other = Member(topic, "n"), Member(topic, "o")
    topic.submit(ORIGIN, "t", [item(name) for name in "abcdef"])
    topic.submit(ORIGIN, "t", [item(name) for name in ("own1", "own2")], "o")
    node.take(slots=3)
    other.take(slots=1)
    node.put_back("a", started=True)
    topic.bury("n", node.inc, [Burial(node.claims["b"].claim, "malformed", "")])
    topic.cancel("c")
    topic.beat("n", node.inc)
    topic.set_state("o", other.inc, "gone")
    assert node.look(largest=LARGEST).taken
