"""``dead``: letters about what could not be run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import click

from inferq.cluster.letters import MOST_LETTERS, REQUEUED, Letter, Letters
from inferq.commands.call import DONE, NO, Call, Failure, command
from inferq.commands.printing import (
    Row,
    clean,
    clean_answer,
    duration,
    print_json,
    print_table,
    size,
)

HEAD = ("letter", "age", "queue", "reason", "request", "node", "tries", "size", "detail")


@click.group("dead")
def dead() -> None:
    """Dead letters: requests that could not be run."""


@command("list")
@click.option("--count", type=click.IntRange(1, MOST_LETTERS), default=50, show_default=True)
@click.option("--before", default="", metavar="LETTER", help="Go on behind this one.")
def list_letters(call: Call, count: int, before: str) -> None:
    """The newest dead letters."""
    with call.topic() as topic:
        letters = Letters(topic).list(count, before)
    if call.as_json:
        print_json(letters)
    else:
        print_table(HEAD, map(_row, letters), empty="no dead letters")


@command("show")
@click.argument("letter")
@click.option("--raw", is_flag=True, help="The beginning of the message, prompt and all.")
def show(call: Call, letter: str, raw: bool) -> int:
    """All about one dead letter."""
    with call.topic() as topic:
        found = Letters(topic).show(letter, raw=raw)
    if found is None:
        call.answer(None, f"{letter}: there is no such letter")
        return NO
    if call.as_json:
        print_json(found)
        return DONE
    for name, value in found._asdict().items():
        if name != "text":
            click.echo(f"{name + ':':<12} {clean(str(value), 2000)}")
    click.echo(clean_answer(found.text))
    return DONE


@command("requeue")
@click.argument("letters", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that there are now.")
def requeue(call: Call, letters: Sequence[str], every: bool) -> int:
    """Have LETTERS run once more, as if they were submitted now."""
    return _for_each(call, letters, every, lambda desk, name: desk.requeue(name), REQUEUED)


@command("drop")
@click.argument("letters", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that there are now.")
def drop(call: Call, letters: Sequence[str], every: bool) -> int:
    """Forget LETTERS."""

    def forget(desk: Letters, name: str) -> str:
        return "dropped" if desk.drop(name) else "there is no such letter"

    return _for_each(call, letters, every, forget, "dropped")


for member in (list_letters, show, requeue, drop):
    dead.add_command(member)


def _for_each(
    call: Call,
    letters: Sequence[str],
    every: bool,
    step: Callable[[Letters, str], str],
    good: str,
) -> int:
    if bool(letters) == every:
        raise Failure("name letters (see `dead list`), or give --all")
    outcomes: dict[str, str] = {}
    with call.topic() as topic:
        desk = Letters(topic)
        for name in letters or _all_of(desk):
            outcomes[name] = step(desk, name)
            if not call.as_json:
                click.echo(clean(f"{name}: {outcomes[name]}", 300))
    if call.as_json:
        print_json(outcomes)
    return DONE if all(outcome == good for outcome in outcomes.values()) else NO


def _all_of(desk: Letters) -> list[str]:
    """Every letter that is there now, the oldest first, so that requests keep their order."""
    names: list[str] = []
    while page := desk.list(MOST_LETTERS, before=names[-1] if names else ""):
        names += [letter.id for letter in page]
    return names[::-1]


def _row(letter: Letter) -> Row:
    return (
        letter.id,
        duration(max(0.0, time.time() - letter.at)) if letter.at else "-",
        letter.queue,
        letter.reason,
        letter.request_id or "-",
        letter.node or "-",
        letter.attempts,
        size(letter.bytes) + ("" if letter.whole else " (cut)"),
        letter.detail,
    )
