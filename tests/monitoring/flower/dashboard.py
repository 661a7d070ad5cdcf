"""Flower as an operator starts it, and its users."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from tests.faults.mortal_redis import free_port
from tests.faults.processes import Command
from tests.support import LONG_S, wait_until

#: Who may act, and who may only look, where there are both.
OPERATOR, VIEWER = ("ann", "secret"), ("bob", "look")
USERS = ("--basic-auth=ann:secret,bob:look", "--inferq-operators=ann")
#: A token of a script: any, as long as cookie and header agree.
TOKEN = "ab12"


class Dashboard:
    """``celery -A inferq.monitoring.flower flower`` in a process of its own."""

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        *options: str,
        topic: str = "default",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        arguments = ["-m", "celery", "-A", "inferq.monitoring.flower", "flower"]
        arguments += [f"--port={self.port}", "--address=127.0.0.1", *options]
        settings = {"INFERQ_SCHEDULER_URL": redis_url, "INFERQ_SCHEDULER_TOPIC": topic}
        self.process = Command(
            "flower", arguments, {**settings, **(env or {})}, folder / "flower.log"
        )
        wait_until(lambda: self._answers() or not self.process.is_alive)
        assert self.process.is_alive, self.process.tail()

    def user(self, who: tuple[str, str] | None = OPERATOR) -> httpx.Client:
        """A client that says who it is, with a token against requests from other sites."""
        return httpx.Client(
            base_url=self.url,
            auth=who,
            timeout=LONG_S,
            cookies={"_xsrf": TOKEN},
            headers={"X-XSRFToken": TOKEN},
        )

    def signed_in(self, who: tuple[str, str] = OPERATOR) -> str:
        """An address with a user's name and password, for a browser."""
        return f"http://{who[0]}:{who[1]}@127.0.0.1:{self.port}"

    def data(self, path: str = "/cluster/data", **arguments: str) -> Any:
        """What a page's script would be told."""
        with self.user() as user:
            answer = user.get(path, params=arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_for(
        self, condition: Callable[[Any], bool], path: str = "/cluster/data", **arguments: str
    ) -> Any:
        """What a page's script is told once it is so: answers may be a second old."""
        until_s = time.monotonic() + LONG_S
        told = self.data(path, **arguments)
        while not condition(told):
            assert time.monotonic() < until_s, f"it did not come to be: {told}"
            time.sleep(0.02)
            told = self.data(path, **arguments)
        return told

    def act(
        self, action: str, who: tuple[str, str] | None = OPERATOR, **body: Any
    ) -> httpx.Response:
        """Do something as a page's script would."""
        with self.user(who) as user:
            # Not httpx's JSON: names may hold what is no character.
            return user.post(f"/api/inferq/{action}", content=json.dumps(body))

    def close(self) -> None:
        """End it."""
        self.process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answers(self) -> bool:
        try:
            return bool(httpx.get(self.url).status_code)
        except httpx.TransportError:
            return False
