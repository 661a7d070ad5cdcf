"""The web service as a process, and callers of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.examples.conftest import EXAMPLES
from tests.faults.mortal_redis import free_port
from tests.faults.processes import Command
from tests.support import LONG_S, wait_until

Event = tuple[str, dict[str, Any]]


class Service:
    """``uvicorn`` on a port of its own."""

    def __init__(self, folder: Path, env: Mapping[str, str], name: str = "web") -> None:
        self.port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=LONG_S)
        arguments = ["-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_stream.app:app"]
        arguments += ["--host", "127.0.0.1", "--port", str(self.port)]
        self.process = Command(name, arguments, env, folder / f"{name}.log")
        try:
            wait_until(lambda: self._answers() or not self.process.is_alive)
            assert self.process.is_alive, self.process.tail()
        except BaseException:
            self.close()
            raise

    def generate(self, body: Any) -> httpx.Response:
        """The whole response."""
        return self.http.post("/generate", json=body)

    @contextmanager
    def leaving(self, body: Mapping[str, Any]) -> Iterator[None]:
        """A caller who waits for an answer inside the block, and then is gone."""
        data = json.dumps(body).encode()
        head = f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
        with socket.create_connection(("127.0.0.1", self.port), LONG_S) as caller:
            caller.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
            yield

    def close(self) -> None:
        """As its operator would."""
        self.http.close()
        self.process.term()
        self.process.wait()

    def _answers(self) -> bool:
        try:
            self.http.get("/docs")
        except httpx.TransportError:
            return False
        return True


def events(response: httpx.Response) -> Iterator[Event]:
    """The events of a stream, as they come."""
    kind = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))
