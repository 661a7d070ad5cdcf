"""Who may act: Flower's own rules, and ours on top."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from functools import cache
from typing import Any
from urllib.parse import urlparse

from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado.web import HTTPError, RequestHandler

from inferq.monitoring.flower.options import operators

_READ_ONLY = "Read only mode is enabled"
_NO_AUTHENTICATION = (
    "Actions need authentication: start Flower with --basic-auth or --auth, or set "
    "FLOWER_UNAUTHENTICATED_API=true"
)
_NO_OPERATOR = "This user may look, not act (see --inferq-operators)"
_SAFE = ("GET", "HEAD", "OPTIONS")


def refusal(handler: Any) -> str:
    """Why whoever asks may not act; empty when they may. They are authenticated already."""
    options = handler.application.options
    if options.read_only:
        return _READ_ONLY
    if not (options.basic_auth or options.auth) and not handler.unauthenticated_api:
        return _NO_AUTHENTICATION
    allowed = operators()
    return _NO_OPERATOR if allowed and user_of(handler) not in allowed else ""


def user_of(handler: Any) -> str:
    """The name that the user has proved to have; empty where Flower asks for none.

    Flower keeps an e-mail address from OAuth; of basic authentication it only says that it holds.
    """
    user = handler.current_user
    if isinstance(user, str):
        return user
    if not handler.application.options.basic_auth:
        return ""
    try:
        _, _, encoded = handler.request.headers.get("Authorization", "").partition(" ")
        return b64decode(encoded).decode().partition(":")[0]
    except (Error, UnicodeDecodeError):
        return ""


class Operators:
    """Before a stock action: whether its user may act. In front of a handler of Flower's API."""

    def prepare(self: Any) -> Any:
        """Flower's own checks first."""
        ready = super().prepare()  # type: ignore[misc]
        if self.request.method not in _SAFE and operators() and refusal(self):
            raise HTTPError(403, refusal(self))
        return ready


@cache
def guarded(kind: type) -> type:
    """The handler with rights checked before its actions."""
    if issubclass(kind, Operators):
        return kind
    return type(kind.__name__, (Operators, kind), {"__module__": kind.__module__})


class ActionHandler(BaseApiHandler):  # type: ignore[misc]
    """An action of ours: authenticated, allowed, and asked for by a page of this very Flower."""

    def check_xsrf_cookie(self) -> None:
        """Refuse what another site makes a browser send.

        Flower checks only where it has authentication, and no token with basic authentication.
        A script sends any value as both cookie ``_xsrf`` and header ``X-XSRFToken``.
        """
        headers = self.request.headers
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if site and site != "same-origin":
            raise HTTPError(403, "Cross-site request forbidden")
        if not site and origin and urlparse(origin).netloc != self.request.host:
            raise HTTPError(403, "Cross-origin request forbidden")
        RequestHandler.check_xsrf_cookie(self)

    def prepare(self) -> None:
        """Flower's rule for its API, then ours."""
        super().prepare()
        if not self.current_user:
            raise HTTPError(403, "Log in first")
        why_not = refusal(self)
        if why_not:
            raise HTTPError(403, why_not)


class PageHandler(BaseHandler):  # type: ignore[misc]
    """A page or its data: nothing but our own files may run or be shown in it."""

    def set_default_headers(self) -> None:
        """Also against being framed by another site, which could steal clicks."""
        super().set_default_headers()
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'",
        )
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")
