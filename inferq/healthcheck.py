"""Whether a node works: ``python -m inferq.healthcheck NODE`` sends it a small request.

Exits with 0 and one line when it answers, or when it is busy with others' requests; else with 1 and
why. It needs the rights of a producer. Meant for container engines, once or twice a minute.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from redis.exceptions import RedisError

from inferq.client import Client
from inferq.cluster.link import AWAY, Link, explained
from inferq.cluster.topic import Topic
from inferq.cluster.view import NodeView, View
from inferq.errors import InferqError, QueueFull, RequestExpired
from inferq.settings import Settings


class Health(NamedTuple):
    """What came of it, and in words."""

    is_good: bool
    words: str


def check(settings: Settings, name: str, timeout_s: float) -> Health:
    """Look at a node, and have it answer a request within ``timeout_s``.

    Raises:
        SchedulerUnavailable: Redis cannot be used.
    """
    nodes = _nodes(settings)
    node = nodes.get(name)
    if node is None:
        return Health(False, f"{name} has not joined topic {settings.scheduler_topic!r}")
    if not node.live or node.state != "ready":
        return Health(False, f"{name} is {node.state if node.live else 'lost'}")
    if node.role == "decode" and not any(_prefills(other) for other in nodes.values()):
        return Health(True, f"{name} is ready; no node prefills for it")
    return _judge(settings, node, timeout_s)


def _judge(settings: Settings, node: NodeView, timeout_s: float) -> Health:
    try:
        return _ask(settings, node, timeout_s)
    except QueueFull as exc:
        return Health(True, f"{node.name} is busy: {exc}")
    except RequestExpired:
        return _after_silence(settings, node.name, timeout_s)
    except InferqError as exc:
        return Health(False, f"{node.name} fails: {exc}")


def _ask(settings: Settings, node: NodeView, timeout_s: float) -> Health:
    begun_at = time.monotonic()
    # A decode node has no queue for new requests; one token does not leave its prefill node.
    own = "" if node.role == "decode" else node.name
    tokens = 1 if node.role == "prefill" else 2
    with Client(settings, node=own) as client:
        client.generate(
            prompt_token_ids=[1],
            max_tokens=tokens,
            temperature=0.0,
            deadline=time.time() + timeout_s,
        )
    return Health(True, f"{node.name} answered in {time.monotonic() - begun_at:.2f} s")


def _after_silence(settings: Settings, name: str, timeout_s: float) -> Health:
    """No answer came: because others are before it, or because the node is stuck?"""
    node = _nodes(settings).get(name)
    if node is None or not node.live or node.state != "ready" or not node.claims:
        return Health(False, f"{name} did not answer within {timeout_s:g} s")
    busy = f"{name} is busy with {node.claims} requests"
    if node.stalled_s >= settings.cluster.stall_s:
        return Health(False, f"{busy} and has made no progress for {node.stalled_s} s")
    return Health(True, busy)


def _nodes(settings: Settings) -> dict[str, NodeView]:
    link = Link(settings)
    try:
        return {node.name: node for node in View(Topic(settings, link)).nodes()}
    except (*AWAY, RedisError) as exc:
        raise explained(exc) from None
    finally:
        link.close()


def _prefills(node: NodeView) -> bool:
    return node.live and node.state == "ready" and node.role in ("prefill", "mixed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the node of the first argument."""
    parser = argparse.ArgumentParser(prog="python -m inferq.healthcheck", description=__doc__)
    parser.add_argument("node", help="its name, such as gpu0@host")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for the answer (20)")
    given = parser.parse_args(arguments)
    try:
        health = check(Settings(), given.node, given.timeout)
    except InferqError as exc:
        health = Health(False, str(exc))
    sys.stdout.write(f"{health.words}\n")
    return 0 if health.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
