"""What a user of Redis' access lists must be allowed, for each part that one can play.

The rules are for one topic: its keys and queues, and what Celery needs beside them. A script that
runs into a missing right stops half way, so nodes and producers look at all their rights first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from redis.exceptions import NoPermissionError

from inferq.cluster.address import address_of
from inferq.cluster.keys import prefix_of
from inferq.cluster.link import Link, ScriptName, script
from inferq.routing.topics import decode_queue, prefill_queue
from inferq.settings import Settings

#: node: a worker. producer: inferq's clients. stock: producers with Celery alone. monitor: reads
#: only. operator: Flower, and commands that change something.
Part = Literal["node", "producer", "stock", "monitor", "operator"]
PARTS: tuple[Part, ...] = get_args(Part)

_COMMAND_IN_SCRIPT = re.compile(r"[(]'([A-Z]{3,})'[,)]")
#: A connection, its health, and scripts.
_CONNECTION = "client|setinfo ping select"
_SCRIPTS = "eval evalsha"
#: How Kombu declares a queue, sends and receives on it.
_KOMBU_QUEUES = (
    "exists llen lpush brpop del multi exec evalsha sadd srem smembers zadd zrem zrangebyscore "
    "script|exists script|load"
)
_KOMBU_CHANNELS = "publish psubscribe punsubscribe"


class _Needs(NamedTuple):
    """Commands by name; scripts whose commands count as well; which keys and channels."""

    commands: str
    scripts: tuple[ScriptName, ...] = ()
    own_keys: Literal["", "read", "all"] = ""
    results: Literal["", "read", "write", "all"] = ""
    sends_tasks: bool = False
    control: bool = False
    stock_consumer: bool = False
    only_reads_handoffs: bool = False


_MARKS = {"read": "%R~", "write": "%W~", "all": "~"}
_NODE_SCRIPTS: tuple[ScriptName, ...] = (
    "adopt",
    "beat",
    "bury",
    "cancel",
    "claim",
    "emit",
    "hop",
    "put_back",
    "register",
    "shards",
    "state",
)
_READING: tuple[ScriptName, ...] = ("letters", "stories", "survey")
#: Who is there, what waits, what becomes of a request.
_VIEW = "get hgetall hkeys hlen llen time zrange"
_NEEDS: dict[Part, _Needs] = {
    "node": _Needs(
        f"{_CONNECTION} {_SCRIPTS} {_KOMBU_QUEUES} {_KOMBU_CHANNELS} blmove blpop get hgetall "
        "hkeys mget time zrange",
        _NODE_SCRIPTS,
        own_keys="all",
        results="all",
        sends_tasks=True,
        control=True,
    ),
    "producer": _Needs(
        f"{_CONNECTION} {_SCRIPTS} {_VIEW} pexpire unlink xadd xread xtrim",
        ("submit", "cancel", "survey"),
        own_keys="all",
        results="write",  # of requests of stock producers that it cancels
        only_reads_handoffs=True,
    ),
    "stock": _Needs(
        f"{_CONNECTION} llen lpush multi exec sadd get mget subscribe unsubscribe",
        results="read",
        sends_tasks=True,
    ),
    # Of their scripts, the parts that are used: those that change something are not.
    "monitor": _Needs(
        f"{_CONNECTION} {_SCRIPTS} {_VIEW} hget hstrlen info lindex mget xlen xrange xrevrange",
        own_keys="read",
    ),
    "operator": _Needs(
        f"{_CONNECTION} {_SCRIPTS} {_KOMBU_QUEUES} {_KOMBU_CHANNELS} {_VIEW} mget xlen "
        "xrange subscribe unsubscribe pexpire unlink xadd xread xtrim xdel info config|get scan",
        (*_READING, "cancel", "purge", "requeue", "shards", "state", "submit"),
        own_keys="all",
        results="all",
        sends_tasks=True,
        control=True,
        stock_consumer=True,  # Flower reads events as any consumer of Kombu's
    ),
}


class Rights(NamedTuple):
    """Commands, and patterns of keys and channels, as access lists write them."""

    commands: tuple[str, ...]
    keys: tuple[str, ...]
    channels: tuple[str, ...]

    def rules(self) -> list[str]:
        """The rules of ``ACL SETUSER``, from a user without rights on."""
        return [
            *self.keys,
            *(f"&{channel}" for channel in self.channels),
            *(f"+{command}" for command in self.commands),
        ]


def rights_of(part: Part, topic: str, database: int | str = 0) -> Rights:
    """The least rights with which everything works."""
    needs = _NEEDS[part]
    commands = set(needs.commands.split())
    for name in needs.scripts:
        commands |= {found.lower() for found in _COMMAND_IN_SCRIPT.findall(script(name).text)}
    return Rights(
        tuple(sorted(commands)), tuple(_keys(needs, topic)), tuple(_channels(needs, database))
    )


def _keys(needs: _Needs, topic: str) -> Iterator[str]:
    queues = [f"{queue}*" for queue in (prefill_queue(topic), decode_queue(topic))]
    if needs.own_keys:
        mark = _MARKS[needs.own_keys]
        yield from (f"{mark}{prefix_of(topic)}*", f"{mark}{queues[0]}")
        # What is in there tells a decode node where to fetch from: only nodes write it.
        yield f"{'%R~' if needs.only_reads_handoffs else mark}{queues[1]}"
    elif needs.sends_tasks:
        yield f"~{queues[0]}"  # with its few commands it can count what waits, not read it
    if needs.sends_tasks:
        yield f"~_kombu.binding*.{prefill_queue(topic)}"  # the exchange of both queues
    if needs.control:
        yield from ("~*.celery.pidbox*", "~celeryev.*", "~_kombu.binding*.celeryev")
        yield "~_kombu.binding_deadlines"
    if needs.stock_consumer:
        yield from ("~unacked", "~unacked_index", "~unacked_mutex")
    if needs.results:
        yield f"{_MARKS[needs.results]}celery-task-meta-*"


def _channels(needs: _Needs, database: int | str) -> Iterator[str]:
    if needs.control:
        yield from (f"/{database}.celery.pidbox", f"/{database}.celeryev/*")
        yield f"/{database}.reply.celery.pidbox"
    if needs.results:
        yield "celery-task-meta-*"


def require_rights(link: Link, part: Part, settings: Settings) -> None:
    """See that all rights are there.

    Raises:
        NoPermissionError: names those that are missing.
        one of AWAY: Redis did not answer.
    """
    topic, database = settings.scheduler_topic, address_of(settings).url.database
    samples = list(_samples(rights_of(part, topic, database)))
    commands = [sample.command for sample in samples]
    _, refused = link.run("rights", {"prefix": prefix_of(topic), "commands": commands})
    if refused:
        missing = _missing(samples, {samples[number - 1] for number in refused})
        raise NoPermissionError(
            f"{', '.join(missing)} (of a {part}; docs/security.md says which it needs)"
        )


class _Sample(NamedTuple):
    """A command that a right allows; ``pattern``: of the key or channel in it, if it has one."""

    name: str
    pattern: str
    command: tuple[str, ...]


def _missing(samples: Sequence[_Sample], refused: set[_Sample]) -> list[str]:
    """The rights that explain what was refused."""
    missing = []
    for pattern in dict.fromkeys(sample.pattern for sample in samples):
        group = [sample for sample in samples if sample.pattern == pattern]
        names = list(dict.fromkeys(f"+{sample.name}" for sample in group if sample in refused))
        if pattern and refused.issuperset(group):
            missing.append(pattern if len(names) > 1 else f"{names[0]} on {pattern}")
        else:
            missing += names
    return list(dict.fromkeys(missing))


def _samples(rights: Rights) -> Iterator[_Sample]:
    """Each command, on the first key or channel; each key and channel, with some commands."""
    keys = {pattern: pattern.partition("~")[2].replace("*", "x") for pattern in rights.keys}
    channels = {f"&{name}": name.replace("*", "x") for name in rights.channels}
    first_key, first_channel = next(iter(keys.items())), next(iter(channels.items()), ("", ""))
    for name in rights.commands:
        command = _sample(name, first_key[1], first_channel[1])
        used = [pattern for pattern, text in (first_key, first_channel) if text in command]
        yield _Sample(name, used[0] if used else "", command)
    for pattern, key in keys.items():
        if not pattern.startswith("%W"):
            yield _Sample("get", pattern, ("GET", key))
        if not pattern.startswith("%R"):
            yield _Sample("lpush", pattern, ("LPUSH", key, "x"))
            yield _Sample("set", pattern, ("SET", key, "x"))
    for pattern, channel in channels.items():
        yield _Sample("publish", pattern, ("PUBLISH", channel, "x"))


def _sample(name: str, key: str, channel: str) -> tuple[str, ...]:
    fixed = {
        "eval": ("return 1", "0"),
        "evalsha": ("0" * 40, "0"),
        "publish": (channel, "x"),
        "subscribe": (channel,),
        "psubscribe": (channel,),
        "select": ("0",),
        "script|load": ("return 1",),
        "script|exists": ("0" * 40,),
        "client|setinfo": ("lib-name", "x"),
        "config|get": ("save",),
        "xread": ("STREAMS", key, "0"),
        "blmove": (key, key, "LEFT", "LEFT", "1"),
        "lmove": (key, key, "LEFT", "LEFT"),
        "renamenx": (key, key),
        "blpop": (key, "1"),
        "brpop": (key, "1"),
    }
    if name in ("ping", "time", "multi", "exec", "info", "unsubscribe", "punsubscribe"):
        arguments: tuple[str, ...] = ()
    elif name in ("del", "exists", "mget", "unlink"):  # each argument is a key
        arguments = (key,)
    else:
        arguments = fixed.get(name, (key, "x", "x"))
    return (*name.split("|"), *arguments)
