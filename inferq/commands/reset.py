"""``reset``: empty a topic."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import click

from inferq.cluster.keys import STEPS, list_of, unquoted
from inferq.cluster.letters import Letters
from inferq.cluster.topic import Topic
from inferq.cluster.view import View
from inferq.commands.call import NO, Call, Failure, command

#: Keys that are looked at in one call, messages that are cancelled in one.
_KEYS_A_CALL = 1_000
_MESSAGES_A_CALL = 100
#: Lists that no node owns are searched for among so many keys.
MOST_KEYS = 10_000_000
_REASON = "its topic was reset"


class Emptied(NamedTuple):
    """What a reset has ended."""

    waiting: int
    running: int
    letters: int


@command("reset")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(call: Call, yes: bool) -> int:
    """Empty the topic: cancel what waits and what runs, and drop the dead letters.

    Producers are told that their requests were cancelled; what they submit meanwhile may be
    cancelled as well. Nodes stay, and so does what is known of requests that have ended.
    """
    with call.topic() as topic:
        view = View(topic)
        waiting = sum(queue.length for queue in view.queues(most_keys=MOST_KEYS))
        running, letters = view.claims(), Letters(topic).count()
        question = (
            f"Topic {topic.settings.scheduler_topic}: cancel {waiting} requests that wait and "
            f"{running} that run, and drop {letters} dead letters?"
        )
        if not yes and not _confirm(question):
            click.echo("nothing was changed", err=True)
            return NO
        emptied = empty(topic, view)
    text = (
        f"cancelled {emptied.waiting} that waited and {emptied.running} others; "
        f"dropped {emptied.letters} dead letters"
    )
    call.answer(emptied, text)
    return 0


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise Failure("reset asks first, and nobody is there to answer: give --yes")
    return click.confirm(question, default=False, err=True)


def empty(topic: Topic, view: View) -> Emptied:
    """Cancel all that is live and drop the letters. Raises one of link.AWAY."""
    waiting = sum(
        _purge(topic, list_of(queue.name, step))
        for queue in view.queues(most_keys=MOST_KEYS)
        for step in range(1, len(STEPS) + 1)
    )
    running = sum(
        topic.cancel(request_id, tell=True, message=_REASON) != "unknown"
        for request_id in _live_ids(topic)
    )
    letters = Letters(topic).count()
    topic.link.call("UNLINK", f"{topic.prefix}dead")
    return Emptied(waiting, running, letters)


def _purge(topic: Topic, name: str) -> int:
    """Cancel what waits in a list now; what comes meanwhile is not chased for ever."""
    left = int(topic.link.call("LLEN", name.encode("utf-8", "surrogateescape")))
    done = 0
    while done < left:
        count = topic.purge(name, min(_MESSAGES_A_CALL, left - done), _REASON)
        if count == 0:
            break
        done += count
    return done


def _live_ids(topic: Topic) -> Iterator[str]:
    """Requests of which there is a record, some twice; ended ones among them."""
    prefix = f"{topic.prefix}req:".encode()
    cursor = b"0"
    while True:
        cursor, keys = topic.link.call(
            "SCAN", cursor, "MATCH", prefix + b"*", "COUNT", _KEYS_A_CALL
        )
        for key in keys:
            yield unquoted(key.removeprefix(prefix).decode("utf-8", "surrogateescape"))
        if int(cursor) == 0:
            return
