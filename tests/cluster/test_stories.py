"""What is kept of requests that have ended."""

from __future__ import annotations

import msgpack
import pytest

from inferq.cluster.keys import quoted
from inferq.cluster.stories import Stories, Story, pack_story
from inferq.cluster.topic import Group, Settle, Topic
from inferq.messages import Crossing, ErrorInfo, Output, Timings
from tests.cluster.support import PREFIX, Member, Server, submit


@pytest.fixture
def shelf(topic: Topic) -> Stories:
    return Stories(topic)


def end(topic: Topic, last: Output) -> None:
    """Have a request end as its node would."""
    submit(topic, last.request_id)
    node = Member(topic, last.node or f"node-of-{last.request_id}")
    [taken] = node.look().taken
    settle = Settle(taken.claim, quoted(last.request_id), story=pack_story(last))
    assert topic.emit(node.name, node.inc, [Group("", b"", [settle])]) == [0]


def test_a_story_tells_where_a_request_ran_and_how_long(topic: Topic, shelf: Stories) -> None:
    end(
        topic,
        Output(
            "a b".replace(" ", "/"),
            attempt=2,
            index=10,
            token_ids=(1, 2),
            finished=True,
            finish_reason="stop",
            timings=Timings(0.5, 0.25, 2.0),
            node="d@here",
            crossing=Crossing("p@there", "tcp", 4096, 0.125),
        ),
    )
    [story] = shelf.latest()
    assert story == Story(
        request_id="a/b",
        ended_at=story.ended_at,
        finish_reason="stop",
        attempt=2,
        tokens=12,
        queue_s=0.5,
        prefill_s=0.25,
        decode_s=2.0,
        node="d@here",
        prefill_node="p@there",
        protocol="tcp",
        kv_bytes=4096,
        transfer_s=0.125,
    )
    assert story.ended_at > 1_600_000_000
    assert shelf.find("a/b") == story


def test_a_failure_is_told_with_its_code(topic: Topic, shelf: Stories) -> None:
    error = ErrorInfo("engine_step", "a sentence")
    end(topic, Output("a", finished=True, finish_reason="error", error=error, node="n"))
    found = shelf.find("a")
    assert found is not None
    assert (found.finish_reason, found.error_code, found.prefill_node) == (
        "error",
        "engine_step",
        "",
    )


def test_the_newest_come_first(topic: Topic, shelf: Stories) -> None:
    for name in "abc":
        end(topic, Output(name, finished=True, finish_reason="stop"))
    assert [story.request_id for story in shelf.latest(2)] == ["c", "b"]


def test_the_last_end_of_an_id_is_found_among_thousands(
    topic: Topic, shelf: Stories, server: Server
) -> None:
    for nodes in ("first", "second"):
        end(topic, Output("a", finished=True, finish_reason="stop", node=nodes))
    with server.pipeline() as pipe:
        for i in range(3000):
            pipe.xadd(f"{PREFIX}ended", {"id": f"other-{i}", "story": "x"})
        pipe.execute()
    found = shelf.find("a")
    assert found is not None
    assert found.node == "second"
    assert shelf.find("nobody") is None


def test_an_empty_topic_has_no_stories(shelf: Stories) -> None:
    assert shelf.latest() == []
    assert shelf.find("a") is None


@pytest.mark.parametrize(
    "story",
    [
        b"",
        b"\xc1",
        b"\x91" * 5000,
        msgpack.packb(None),
        msgpack.packb(["stop"]),
        msgpack.packb([1, 2, "x", -1, [1e400, "b", None], 7, ["a", 1, -1]]),
        msgpack.packb(["s" * 100_000, "", 0, 0, [], "", []]),
        msgpack.packb({"a": {1: 2}}),
    ],
)
def test_a_story_that_makes_no_sense_says_nothing(
    shelf: Stories, server: Server, story: bytes
) -> None:
    server.xadd(f"{PREFIX}ended", {"id": "a", "story": story})
    [told] = shelf.latest()
    assert (told.tokens, told.node, told.prefill_node) == (0, "", "")
    assert told.queue_s == 0.0
    assert shelf.find("a") == told
