"""What all commands share: settings, the way to the topic, and how failures are told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import click
from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from inferq.cluster.address import address_of
from inferq.cluster.link import AWAY, Link, explained
from inferq.cluster.topic import Topic
from inferq.cluster.view import NodeView, View
from inferq.commands.printing import clean, print_json
from inferq.errors import InferqError
from inferq.settings import Settings
from inferq.worker.options import settings_of

#: The oldest version of Redis that will do.
OLDEST = (7, 0)
#: What is said of what went wrong is cut at this length, characters.
_MAX_MESSAGE = 600

#: Exit codes: done; no (nothing there, something is wrong); could not be done at all.
DONE, NO, FAILED = 0, 1, 2


class Failure(click.ClickException):
    """Nothing could be done, and why, in one line."""

    exit_code = FAILED

    def show(self, file: Any = None) -> None:
        """Say so on standard error."""
        del file
        click.echo(f"inferq: {clean(self.message, _MAX_MESSAGE)}", err=True)


class Call(NamedTuple):
    """One run of a command: by which settings, and whether its answer is to be JSON."""

    settings: Settings
    as_json: bool

    def require_cluster(self) -> None:
        """Raises Failure when there are no nodes elsewhere to speak of."""
        if self.settings.scheduler_name == "local":
            raise Failure(
                "scheduler_name='local': it runs inside its client; allowed here are global and "
                "splitwise"
            )

    @contextmanager
    def topic(self) -> Iterator[Topic]:
        """The topic, on a server that is new enough."""
        self.require_cluster()
        link = Link(self.settings)
        try:
            refuse_old(version_of(link))
            yield Topic(self.settings, link)
        finally:
            link.close()

    def answer(self, value: Any, text: str) -> None:
        """Print a value, in words or as JSON."""
        if self.as_json:
            print_json(value)
        else:
            click.echo(clean(text, _MAX_MESSAGE))


def command(name: str, **attributes: Any) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command of a function that takes a Call, and its own options, and may return an exit
    code. It has the options that all have.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @click.pass_context
        def run(
            context: click.Context,
            /,
            as_json: bool,
            topic: str | None,
            setting: Sequence[str],
            **given: Any,
        ) -> None:
            options = {"inferq_topic": topic, "inferq_setting": setting}
            with failures_told(context):
                settings = settings_of(_base(context), options)
                context.meta["inferq.settings"] = settings
                code = function(Call(settings, as_json), **given)
            context.exit(code or DONE)

        made: Any = functools.update_wrapper(run, function)
        # Of its own: one function may be two commands.
        made.__click_params__ = list(getattr(function, "__click_params__", ()))
        for option in _COMMON:
            option(made)
        return click.command(name, click.Command, **attributes)(made)

    return decorate


_COMMON = (
    click.option("--setting", multiple=True, metavar="NAME=VALUE", help="Any setting; repeatable."),
    click.option("--topic", metavar="NAME", help="Instead of the scheduler_topic of the settings."),
    click.option("--json", "as_json", is_flag=True, help="Answer in JSON."),
)


def _base(context: click.Context) -> Settings:
    """The settings of the application that ``celery -A`` names, or those of the environment."""
    app = getattr(context.obj, "app", None)
    settings = getattr(app, "settings", None)
    return settings if isinstance(settings, Settings) else read_settings()


def read_settings() -> Settings:
    """Settings by environment and files; as nowhere else, the scheduler is global by default."""
    settings = Settings()
    if "scheduler_name" not in settings.model_fields_set:
        settings = Settings(scheduler_name="global")
    return settings


@contextmanager
def failures_told(context: click.Context) -> Iterator[None]:
    """Turn what a command may raise into one line."""
    try:
        yield
    except BrokenPipeError:  # of standard output: nobody reads on, which click knows to end
        raise
    except AuthenticationError as exc:  # a ConnectionError to redis-py
        raise Failure(f"{_where(context)}: {explained(exc)}") from None
    except (*AWAY, OperationalError) as exc:
        raise Failure(f"{_where(context)} does not answer: {_brief(exc)}") from None
    except RedisError as exc:
        raise Failure(f"{_where(context)}: {explained(exc)}") from None
    except InferqError as exc:
        raise Failure(str(exc)) from None


def _where(context: click.Context) -> str:
    """Which Redis, without user and password."""
    settings = context.meta.get("inferq.settings")
    return f"Redis at {place_of(settings)}" if settings is not None else "Redis"


def place_of(settings: Settings) -> str:
    """The address of Redis without user and password."""
    url = address_of(settings).url
    return url.path or f"{url.host}:{url.port}/{url.database}"


def _brief(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def version_of(link: Link) -> str:
    """The version of the server; empty when we may not ask. Raises one of link.AWAY."""
    try:
        info: bytes = link.call("INFO", "server")
    except NoPermissionError:
        return ""
    return info_fields(info).get("redis_version", "")


def info_fields(info: bytes) -> dict[str, str]:
    """The answer of INFO."""
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def refuse_old(version: str) -> None:
    """Raises Failure when the server is too old."""
    if is_old(version):
        oldest = ".".join(map(str, OLDEST))
        raise Failure(f"Redis {version} is too old: {oldest} or newer is needed (or Valkey)")


def is_old(version: str) -> bool:
    """Whether a server's version is older than what is needed; not if it is not known."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    return len(numbers) == 2 and tuple(numbers) < OLDEST


def find_node(topic: Topic, name: str) -> NodeView:
    """A known node by its name, or by the part before the @ if that is enough.

    Raises:
        Failure: names those that are known.
    """
    nodes = View(topic).nodes()
    found = [node for node in nodes if node.name == name]
    found = found or [node for node in nodes if node.name.partition("@")[0] == name]
    if len(found) == 1:
        return found[0]
    known = ", ".join(clean(node.name, 60) for node in nodes[:10]) or "none"
    reason = "fits several nodes" if found else "is no node"
    more = ", ..." if len(nodes) > 10 else ""
    raise Failure(
        f"{name} {reason} of topic {topic.settings.scheduler_topic}; known are {known}{more}"
    )
