"""Puts our pages into Flower, which has no door for them: its lists are private.

Everything that we rely on is checked before anything is changed, so that another Flower says what
is wrong at start instead of showing half a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.exceptions import ImproperlyConfigured
from tornado.web import StaticFileHandler, url

try:
    import flower
    import flower.urls
    from flower.api import BaseApiHandler
except ImportError as exc:
    raise ImproperlyConfigured(
        f"Flower cannot be used, {exc}: pip install 'inferq[flower]'"
    ) from None

from inferq.monitoring.flower import actions, pages
from inferq.monitoring.flower.changes import changed
from inferq.monitoring.flower.loader import Loader
from inferq.monitoring.flower.rights import guarded
from inferq.monitoring.flower.site import Site
from inferq.monitoring.metrics import register_cluster_collector
from inferq.settings import Settings

#: Versions of Flower whose insides are as we know them: from, below.
SUPPORTED = (2, 2), (3,)
_OURS = "inferq_"


def install(settings: Settings) -> None:
    """Add pages, actions, navigation and metrics to the Flower of this process. A second time
    replaces.

    Raises:
        ImproperlyConfigured: this Flower is not built as expected; nothing was changed.
    """
    check_version(flower.VERSION)
    loader = Loader(flower.urls.settings["template_path"])
    handlers = with_pages(flower.urls.handlers, Site(settings))
    # In place: the application and the command have these very objects already.
    flower.urls.handlers[:] = handlers
    flower.urls.settings["template_loader"] = loader
    register_cluster_collector(settings)


def check_version(version: Sequence[int]) -> None:
    """Refuse a Flower that our pages were not tried with."""
    least, below = SUPPORTED
    if not least <= tuple(version) < below:
        found = ".".join(map(str, version))
        raise ImproperlyConfigured(
            f"Flower {found}: inferq's pages need 2.2 or newer, below 3; "
            "pip install 'inferq[flower]'"
        )


def with_pages(handlers: Sequence[Any], site: Site) -> list[Any]:
    """Flower's list of handlers with ours, and with rights checked before every action.

    Raises:
        ImproperlyConfigured: the list is not as it was.
    """
    stock = [handler for handler in handlers if not _is_ours(handler)]
    if not stock or not isinstance(stock[-1], tuple) or stock[-1][0] != r".*":
        raise changed("its list of handlers does not end with the page that says not found")
    return [*map(_guard, stock[:-1]), *_pages(site), stock[-1]]


def _pages(site: Site) -> list[Any]:
    def page(pattern: str, handler: type, name: str) -> Any:
        return url(pattern, handler, {"site": site}, name=_OURS + name)

    return [
        page(r"/cluster", pages.ClusterPage, "cluster"),
        page(r"/cluster/data", pages.ClusterData, "cluster_data"),
        page(r"/cluster/letter", pages.LetterData, "letter"),
        page(r"/request", pages.RequestPage, "request"),
        page(r"/request/data", pages.RequestData, "request_data"),
        page(r"/api/inferq/drain", actions.Drain, "drain"),
        page(r"/api/inferq/resume", actions.Resume, "resume"),
        page(r"/api/inferq/cancel", actions.Cancel, "cancel"),
        page(r"/api/inferq/requeue", actions.Requeue, "requeue"),
        page(r"/api/inferq/drop", actions.Drop, "drop"),
        url(
            r"/inferq/static/(.*)",
            StaticFileHandler,
            {"path": str(pages.STATIC)},
            name="inferq_static",
        ),
    ]


def _guard(handler: Any) -> Any:
    """A stock handler; if it can act, for operators only."""
    if isinstance(handler, url):
        pattern, kind, rest = handler.regex.pattern, handler.handler_class, handler.kwargs
        if issubclass(kind, BaseApiHandler):
            return url(pattern, guarded(kind), rest, handler.name)
    else:
        pattern, kind, *rest = handler
        if issubclass(kind, BaseApiHandler):
            return (pattern, guarded(kind), *rest)
    if pattern.startswith("/api/"):
        raise changed(f"{pattern} is no handler of its API, whose rights can be checked")
    return handler


def _is_ours(handler: Any) -> bool:
    return isinstance(handler, url) and (handler.name or "").startswith(_OURS)
