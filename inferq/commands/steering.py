"""``drain``, ``resume``, ``role`` and ``shards``: what an operator changes while nodes run."""

from __future__ import annotations

from typing import Any

import click

from inferq.app import create_cluster_app
from inferq.commands.call import Call, Failure, command, find_node
from inferq.worker.roles import ROLES

#: A busy node may answer late, and one that was just started may not hear the first call.
TRIES = 3
ANSWER_S = 2.0
#: As lib/loads.lua has it.
MOST_SHARDS = 1024


@command("drain")
@click.argument("node")
def drain(call: Call, node: str) -> None:
    """Have NODE take nothing more and finish what it runs; it stays up until ``resume``."""
    _tell(call, node, "inferq_drain")


@command("resume")
@click.argument("node")
def resume(call: Call, node: str) -> None:
    """Have a drained NODE take requests again."""
    _tell(call, node, "inferq_resume")


@command("role")
@click.argument("node")
@click.argument("role", type=click.Choice(ROLES))
def role(call: Call, node: str, role: str) -> None:
    """Have NODE serve other phases from now on (splitwise)."""
    _tell(call, node, "inferq_role", role=role)


@command("shards")
@click.argument("number", type=click.IntRange(1, MOST_SHARDS))
def shards(call: Call, number: int) -> None:
    """Change the number of shards of the load tables; no row is lost."""
    with call.topic() as topic:
        topic.set_shards(number)
    call.answer({"shards": number}, f"the load tables have {number} shards now")


def _tell(call: Call, name: str, control: str, **arguments: Any) -> None:
    """Send a control command to one node, and wait until it has answered."""
    with call.topic() as topic:
        node = find_node(topic, name)
    if not node.live:
        raise Failure(f"{node.name} is not live: it holds no lease")
    answer = _ask(call, node.name, control, arguments)
    if answer is None:
        raise Failure(
            f"{node.name} is live but did not answer within {TRIES * ANSWER_S:g} s; try again"
        )
    if "ok" not in answer:
        raise Failure(f"{node.name}: {answer.get('error', 'no answer that makes sense')}")
    call.answer({"node": node.name, "answer": answer["ok"]}, f"{node.name}: {answer['ok']}")


def _ask(call: Call, name: str, control: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    with create_cluster_app(call.settings) as app:
        for _ in range(TRIES):
            answers = app.control.broadcast(
                control, arguments, destination=[name], reply=True, timeout=ANSWER_S
            )
            for answer in answers or ():
                said = answer.get(name)
                return said if isinstance(said, dict) else {}
    return None
