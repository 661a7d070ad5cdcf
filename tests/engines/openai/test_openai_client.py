"""A client, its local node, and somebody else's server behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from inferq import Client, RequestFailed
from tests.engines.openai.pairs import VllmStandIn
from tests.engines.openai.support import ask, expected, settings_for, words
from tests.support import LONG_S, wait_until


class Beside:
    """A stand-in in a thread of its own."""

    def __init__(self) -> None:
        self.server = VllmStandIn()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._do(self.server.start())

    def _do(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(LONG_S)  # type: ignore[arg-type]

    def die(self) -> None:
        """End the server, not the thread."""
        self._do(self.server.die())

    def close(self) -> None:
        """End both."""
        self.die()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONG_S)
        self._loop.close()


@pytest.fixture
def beside() -> Iterator[Beside]:
    running = Beside()
    yield running
    running.close()


def test_a_client_streams_and_cancels_through_a_server(beside: Beside) -> None:
    with Client(settings_for(beside.server)) as client:
        outputs = list(client.stream(prompt="The sea is", max_tokens=6, seed=7))
        assert "".join(output.text for output in outputs) == words(expected(ask()))
        beside.server.allowed = asyncio.Semaphore(2)
        answer = client.stream(prompt="The sea is", max_tokens=500, seed=7)
        assert next(answer).text
        answer.close()
        wait_until(beside.server.calls[-1].gone.is_set)


def test_a_client_is_told_that_the_server_died(beside: Beside) -> None:
    with Client(settings_for(beside.server)) as client:
        beside.server.allowed = asyncio.Semaphore(1)
        answer = client.stream(prompt="The sea is", max_tokens=500)
        assert next(answer).text
        beside.die()
        with pytest.raises(RequestFailed, match="engine_error"):
            list(answer)
