"""What a user of the pages may do. POST, a JSON object, answered with a sentence."""

from __future__ import annotations

import json
import logging
from typing import Any

from tornado import web

from inferq.cluster.letters import REQUEUED
from inferq.errors import SchedulerUnavailable
from inferq.monitoring.flower.rights import ActionHandler, user_of
from inferq.monitoring.flower.site import Site

logger = logging.getLogger(__name__)

#: Longer names and ids are nobody's, characters; longer bodies are not read, bytes.
MAX_NAME = 1_024
MAX_BODY = 16_384
#: How long a node may take to answer, seconds.
ANSWER_S = 2.0


class _Action(ActionHandler):
    def initialize(self, site: Site) -> None:
        """Tornado gives each handler what its entry in the list says."""
        self.site = site

    def field(self, name: str) -> str:
        """A text of the body. Raises HTTPError 400, which names what is wrong."""
        body = self.request.body
        try:
            said = json.loads(body) if len(body) <= MAX_BODY else None
        except (ValueError, RecursionError):
            said = None
        value = said.get(name) if isinstance(said, dict) else None
        if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
            wanted = f'{{"{name}": "..."}}'
            raise web.HTTPError(
                400, f"{name}: a JSON object {wanted} with 1 to {MAX_NAME} characters is wanted"
            )
        return value

    def note(self, what: str, whom: str) -> None:
        """Leave a trace of who did what."""
        user = user_of(self) or self.request.remote_ip
        logger.warning("%s %r asked for by %r", what, whom, user)

    def say(self, message: str, *, status: int = 200) -> None:
        """The answer; 409 for what was understood but not done."""
        self.set_status(status)
        self.write({"message": message})

    async def change(self, act: Any) -> Any:
        """Wait for a change in Redis; 503 when it is away."""
        try:
            return await act
        except SchedulerUnavailable as exc:
            raise web.HTTPError(503, str(exc)) from None


class _Control(_Action):
    """A command to one node, over Celery's remote control."""

    command: str
    verb: str

    @web.authenticated
    async def post(self) -> None:
        """Send it, and say what became of it."""
        node = self.field("node")
        if not await self.change(self.site.knows(node)):
            raise web.HTTPError(404, "no node of this topic has this name")
        self.note(self.verb, node)
        replies = await self.run_blocking(
            f"inferq.{self.verb}",
            node,
            self.capp.control.broadcast,
            self.command,
            destination=[node],
            reply=True,
            limit=1,
            timeout=ANSWER_S,
        )
        self.site.forget()
        reply = replies[0].get(node) if replies else None
        if not isinstance(reply, dict):
            self.say(f"{node} does not answer; its state shows whether it obeyed", status=504)
        elif "error" in reply:
            self.say(f"{node} refuses: {reply['error']}", status=409)
        else:
            self.say(f"{node}: {reply.get('ok', 'done')}")


class Drain(_Control):
    """Have a node finish what it runs and take nothing more."""

    command, verb = "inferq_drain", "drain"


class Resume(_Control):
    """Have a drained node take requests again."""

    command, verb = "inferq_resume", "resume"


class Cancel(_Action):
    """Cancel a request, wherever it is."""

    @web.authenticated
    async def post(self) -> None:
        """Its producer is told."""
        request_id = self.field("id")
        self.note("cancel", request_id)
        state = await self.change(self.site.cancel(request_id, "cancelled by an operator"))
        said = {
            "queued": "cancelled while it waited",
            "running": "its node is told to stop it",
        }
        self.say(
            said.get(state, "no live request has this id"), status=200 if state in said else 409
        )


class Requeue(_Action):
    """Have a dead letter run once more."""

    @web.authenticated
    async def post(self) -> None:
        """Only what a node could run."""
        letter = self.field("id")
        self.note("requeue of dead letter", letter)
        verdict = await self.change(self.site.requeue(letter))
        done = verdict == REQUEUED
        self.say(verdict if done else f"not requeued: {verdict}", status=200 if done else 409)


class Drop(_Action):
    """Forget a dead letter."""

    @web.authenticated
    async def post(self) -> None:
        """For good."""
        letter = self.field("id")
        self.note("drop of dead letter", letter)
        dropped = await self.change(self.site.drop(letter))
        self.say(
            "dropped" if dropped else "there is no such letter (any more)",
            status=200 if dropped else 409,
        )
