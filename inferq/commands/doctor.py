"""``doctor``: looks at Redis, the nodes, the queues and the settings, and says what to do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping

from redis.exceptions import NoPermissionError

from inferq.app import create_cluster_app
from inferq.cluster.letters import Letters
from inferq.cluster.link import Link
from inferq.cluster.rights import require_rights
from inferq.cluster.topic import Topic
from inferq.cluster.view import NodeView, QueueView, View
from inferq.commands.call import DONE, NO, Call, command, info_fields, place_of
from inferq.commands.conflicts import conflicts
from inferq.commands.findings import Finding, print_findings
from inferq.commands.looking import state_of
from inferq.commands.printing import duration, print_json
from inferq.commands.reset import MOST_KEYS
from inferq.commands.server import server_findings, too_old

#: Round trips that are measured, and how long they may take, seconds.
PINGS = 20
SLOW_S = 0.005
#: Clocks that differ by more are worth a word, seconds.
SKEW_S = 1.0
#: Nodes are given so long to say what time it is, seconds.
ANSWER_S = 2.0


@command("doctor")
def doctor(call: Call) -> int:
    """Look for what is wrong, and say what to do about it. Exit code 1 if something is."""
    call.require_cluster()
    link = Link(call.settings)
    try:
        found = list(findings(call, link))
    finally:
        link.close()
    if call.as_json:
        print_json(found)
    else:
        print_findings(found)
    return NO if any(finding.level == "wrong" for finding in found) else DONE


def findings(call: Call, link: Link) -> Iterator[Finding]:
    """Everything that was looked at. Raises one of link.AWAY."""
    settings = call.settings
    yield from conflicts(settings)
    info = _info(link)
    if info is None:
        yield Finding("redis", "note", "INFO is not allowed: its state is not known", "grant +info")
    else:
        yield from server_findings(info, _snapshots(link), place_of(settings))
        if too_old(info):
            return
    yield _rights(call, link)
    yield _latency(link, settings.cluster.lease_ttl_s)
    yield _clock(link)
    topic = Topic(settings, link)
    view = View(topic)
    nodes = view.nodes()
    queues = view.queues(most_keys=MOST_KEYS)
    yield from node_findings(nodes, queues, splitwise=settings.scheduler_name == "splitwise")
    live = [node.name for node in nodes if node.live]
    if live:
        yield from _node_clocks(call, live)
    yield from queue_findings(queues, settings.scheduler_ttl)
    yield _letters(Letters(topic).count(), settings.cluster.max_dead_letters)


def _info(link: Link) -> Mapping[str, str] | None:
    try:
        return info_fields(link.call("INFO"))
    except NoPermissionError:
        return None


def _snapshots(link: Link) -> str | None:
    """When the server saves snapshots; None when we may not ask."""
    try:
        answer = link.call("CONFIG", "GET", "save")
    except NoPermissionError:
        return None
    return answer[1].decode() if len(answer) == 2 else None


def _rights(call: Call, link: Link) -> Finding:
    try:
        require_rights(link, "operator", call.settings)
    except NoPermissionError as exc:
        return Finding(
            "rights", "note", f"this user lacks {exc}", "grant them to use every command"
        )
    return Finding("rights", "ok", "this user may do all that commands need")


def _latency(link: Link, lease_s: float) -> Finding:
    times = []
    for _ in range(PINGS):
        began = time.perf_counter()
        link.call("PING")
        times.append(time.perf_counter() - began)
    middle, worst = statistics.median(times), max(times)
    what = f"a round trip takes {duration(middle)}, the longest of {PINGS} {duration(worst)}"
    if worst > lease_s / 10:
        do = "raise cluster.lease_ttl_s, or nodes lose their leases; look for a slow network"
        return Finding("latency", "wrong", what, do)
    if middle > SLOW_S:
        return Finding("latency", "note", what, "put Redis near the nodes")
    return Finding("latency", "ok", what)


def _clock(link: Link) -> Finding:
    before = time.time()
    seconds, micros = link.call("TIME")
    after = time.time()
    skew_s = int(seconds) + int(micros) / 1e6 - (before + after) / 2
    return _skew_finding("this host", skew_s)


def _skew_finding(who: str, skew_s: float) -> Finding:
    if abs(skew_s) <= SKEW_S:
        return Finding("clocks", "ok", f"Redis and {who} agree to {duration(abs(skew_s))}")
    return Finding(
        "clocks",
        "note",
        f"the clocks of Redis and {who} differ by {duration(abs(skew_s))}",
        "run NTP on both; requests are timed by Redis' clock, but times in logs, events and stock "
        "producers' expires are not",
    )


def _node_clocks(call: Call, names: list[str]) -> Iterator[Finding]:
    """A node's answer was written between question and answer, by whichever clock."""
    with create_cluster_app(call.settings) as app:
        asked = time.time()
        answers = app.control.broadcast(
            "inferq_clock", destination=names, reply=True, timeout=ANSWER_S, limit=len(names)
        )
        answered = time.time()
    said = {name: answer for one in answers or () for name, answer in one.items()}
    skewed = []
    for name in names:
        now = said.get(name, {}).get("ok") if isinstance(said.get(name), Mapping) else None
        if isinstance(now, float) and not asked - SKEW_S <= now <= answered + SKEW_S:
            skewed.append(f"{name} ({duration(now - answered)})")
    if skewed:
        yield Finding(
            "clocks", "note", f"of another opinion than this host: {_some(skewed)}", "run NTP there"
        )
    silent = [name for name in names if name not in said]
    if silent:
        yield Finding(
            "nodes",
            "note",
            f"did not answer a control command within {ANSWER_S:g} s: {_some(silent)}",
            "look at their logs; drain and role need answers, requests do not",
        )


def node_findings(
    nodes: list[NodeView], queues: list[QueueView], *, splitwise: bool
) -> Iterator[Finding]:
    """What is to be said of the nodes."""
    live = [node for node in nodes if node.live]
    lost = [node.name for node in nodes if state_of(node) == "lost"]
    waiting = sum(queue.length for queue in queues)
    ready = [node for node in live if node.state == "ready"]
    if not ready:
        yield Finding(
            "nodes",
            "wrong" if waiting else "note",
            f"no node takes requests ({len(live)} live); {waiting} wait",
            "start one: celery -A inferq worker; or resume one that is drained",
        )
    else:
        yield Finding("nodes", "ok", f"{len(ready)} take requests, {len(live)} are live")
    if splitwise and ready:
        for phase in ("prefill", "decode"):
            if not any(node.role in (phase, "mixed") for node in ready):
                do = f"start a node with --role {phase}, or change one: inferq role NODE {phase}"
                yield Finding("nodes", "wrong", f"no node serves {phase}", do)
    if lost:
        what = f"their leases are over and nobody has recovered them: {_some(lost)}"
        do = "start a node: any live one returns their requests to the queue"
        yield Finding("nodes", "wrong", what, do)
    versions = sorted({node.version for node in live if node.version})
    if len(versions) > 1:
        what = f"nodes run different versions: {_some(versions)}"
        yield Finding("nodes", "note", what, "upgrade all; drain one after the other")


def queue_findings(queues: list[QueueView], ttl_s: int) -> Iterator[Finding]:
    """What is to be said of the queues."""
    orphaned = [f"{queue.name} ({queue.length})" for queue in queues if queue.orphaned]
    if orphaned:
        yield Finding(
            "queues",
            "wrong",
            f"nobody takes from queues of nodes that are gone: {_some(orphaned)}",
            "start a node of that name; one that was known is emptied by any live node within "
            "seconds. If nobody is to run them: inferq reset",
        )
    old = [queue for queue in queues if queue.oldest_s is not None and queue.oldest_s > ttl_s / 2]
    for queue in old[:3]:
        what = f"the first request in {queue.name} waits since {duration(queue.oldest_s)}"
        yield Finding("queues", "note", what, "there are too few nodes, or they are stuck")
    if not orphaned and not old:
        waiting = sum(queue.length for queue in queues)
        yield Finding("queues", "ok", f"{waiting} requests wait, none of them lost")


def _letters(count: int, most: int) -> Finding:
    if not count:
        return Finding("dead letters", "ok", "none")
    what = f"{count} dead letters" + (": the oldest are thrown away" if count >= most else "")
    do = "inferq dead list says why; requeue or drop them"
    return Finding("dead letters", "note", what, do)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
