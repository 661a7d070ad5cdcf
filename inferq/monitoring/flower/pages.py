"""The pages and the data that they ask for as long as somebody looks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from flower.utils.tasks import get_task_by_id
from tornado import web

from inferq.monitoring.flower.rights import PageHandler, refusal
from inferq.monitoring.flower.shared import TooMany
from inferq.monitoring.flower.site import Site

#: Longer ids are nobody's, characters.
MAX_ID = 1_024


STATIC = Path(__file__).parent / "static"


@cache
def _version_of(name: str) -> str:
    return web.StaticFileHandler.get_content_version(str(STATIC / name))


class _SitePage(PageHandler):
    def initialize(self, site: Site) -> None:
        """Tornado gives each handler what its entry in the list says."""
        self.site = site

    def show(self, template: str, **values: Any) -> None:
        """Render a page for whoever asks."""
        self.render(
            template,
            topic=self.site.topic_name,
            refusal=refusal(self),
            asset=self.asset,
            refreshes=bool(self.application.options.auto_refresh),
            **values,
        )

    def asset(self, name: str) -> str:
        """The address of a script or sheet: another one when it has changed, so caches follow."""
        return f"{self.reverse_url('inferq_static', name)}?v={_version_of(name)}"

    def text(self, name: str) -> str:
        """An argument as it was sent: Flower would turn quotes and brackets into entities."""
        value: str = self.get_argument(name, "", strip=False, escape=False)
        if len(value) > MAX_ID:
            raise web.HTTPError(400, f"{name}: at most {MAX_ID} characters")
        return value

    async def send(self, payload: Any) -> None:
        """Data for a script; a busy server says so."""
        try:
            self.write(dict(await payload))
        except TooMany:
            self.set_status(503)
            self.write({"error": "too many questions at once"})


class ClusterPage(_SitePage):
    """Nodes, queues, dead letters."""

    @web.authenticated
    def get(self) -> None:
        """The frame of the page; its script asks for the rows."""
        self.show("inferq_cluster.html")


class ClusterData(_SitePage):
    """The rows of the Cluster page."""

    @web.authenticated
    async def get(self) -> None:
        """One answer for all who look."""
        await self.send(self.site.cluster())


class LetterData(_SitePage):
    """What is known of one dead letter."""

    @web.authenticated
    async def get(self) -> None:
        """Its message, without the prompt."""
        await self.send(self.site.letter(self.text("id")))


class RequestPage(_SitePage):
    """One request, and those that ended last."""

    @web.authenticated
    def get(self) -> None:
        """The frame of the page."""
        request_id = self.text("id")
        known = bool(request_id) and get_task_by_id(self.application.events, request_id) is not None
        self.show("inferq_request.html", request_id=request_id, task_known=known)


class RequestData(_SitePage):
    """The data of the Request page: of one request, or the latest."""

    @web.authenticated
    async def get(self) -> None:
        """With ``id`` that request, else the latest."""
        request_id = self.text("id")
        await self.send(self.site.request(request_id) if request_id else self.site.latest())
