"""What every scheduler does alike, whether its nodes are in this process or elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from inferq import (
    Client,
    DuplicateRequest,
    RequestCancelled,
    RequestExpired,
    Settings,
    UnknownRequest,
)
from tests.fake_node import FakeNode
from tests.redis_server import RedisServer, cluster_settings
from tests.support import LONG_S, slow, wait_until

SCHEDULERS = ("local", "global")


class Serving:
    """Nodes of a global topic that answer at once, in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._node = FakeNode(settings)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._node.close()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            for job in self._node.take():
                self._node.answer(job, range(job.fields["max_tokens"]))


@pytest.fixture(params=SCHEDULERS)
def serving(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client whose requests are answered with the tokens 0, 1, 2, ..."""
    with ExitStack() as stack:
        settings = Settings(engine="noop")
        if request.param == "global":
            server: RedisServer = request.getfixturevalue("server")
            settings = cluster_settings(server.port)
            stack.callback(Serving(settings).close)
        yield stack.enter_context(Client(settings))


@pytest.fixture(params=SCHEDULERS)
def idle(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client whose requests take for ever."""
    settings = slow()
    if request.param == "global":
        server: RedisServer = request.getfixturevalue("server")
        settings = cluster_settings(server.port)
    with Client(settings) as client:
        yield client


def test_a_stream_and_a_result_hold_the_same_answer(serving: Client) -> None:
    handle = serving.submit(prompt="p", max_tokens=20)
    outputs = list(handle.stream())
    assert [output.index for output in outputs] == list(range(20))
    assert handle.result(LONG_S).token_ids == tuple(range(20))
    assert handle.result(LONG_S).timings.e2e_s >= handle.result(LONG_S).timings.ttft_s >= 0


def test_a_batch_is_answered_in_order(serving: Client) -> None:
    handles = serving.submit_many({"prompt": "p", "max_tokens": n} for n in range(1, 30))
    assert [len(handle.result(LONG_S).token_ids) for handle in handles] == list(range(1, 30))
    assert serving.counts().held == 0


def test_an_empty_batch_is_nothing(serving: Client) -> None:
    assert serving.submit_many([]) == []


def test_an_id_may_be_used_again_after_its_end_was_read(serving: Client) -> None:
    for _ in range(5):
        assert serving.generate(prompt="p", request_id="again", max_tokens=2, timeout=LONG_S)


def test_an_id_may_be_used_again_after_it_was_cancelled(idle: Client) -> None:
    for _ in range(5):
        idle.submit(prompt="p", request_id="again").cancel()
    assert not idle.submit(prompt="p", request_id="again").done
    assert idle.counts().held == 1


def test_an_id_that_is_not_read_is_in_use(serving: Client) -> None:
    handle = serving.submit(prompt="p", request_id="one", max_tokens=1)
    wait_until(lambda: handle.done)
    with pytest.raises(DuplicateRequest):
        serving.submit(prompt="p", request_id="one")
    assert serving.counts().unread == 1
    handle.result()
    assert serving.submit(prompt="p", request_id="one", max_tokens=1).result(LONG_S)


def test_a_duplicate_in_a_batch_takes_none_of_it(idle: Client) -> None:
    idle.submit(prompt="p", request_id="b")
    with pytest.raises(DuplicateRequest, match="b"):
        idle.submit_many({"prompt": "p", "request_id": name} for name in "abc")
    assert idle.counts().held == 1


@pytest.mark.parametrize("end", [lambda h: h.cancel(), lambda h: h.stream().close()])
def test_a_cancelled_request_ends_at_once(idle: Client, end: Callable[[object], object]) -> None:
    handle = idle.submit(prompt="p")
    end(handle)
    with pytest.raises(RequestCancelled):
        handle.result(LONG_S)
    assert idle.counts().held == 0


def test_an_unknown_id_cannot_be_cancelled(idle: Client) -> None:
    with pytest.raises(UnknownRequest, match="nobody"):
        idle.cancel("nobody")


def test_a_deadline_ends_a_request(idle: Client) -> None:
    handle = idle.submit(prompt="p", deadline=time.time() + 0.1)
    with pytest.raises(RequestExpired):
        handle.result(LONG_S)
    assert idle.counts().held == 0


def test_reset_ends_everything_and_goes_on(idle: Client) -> None:
    handles = idle.submit_many({"prompt": "p", "request_id": f"{n}"} for n in range(20))
    assert idle.reset() == 20
    for handle in handles:
        with pytest.raises(RequestCancelled, match="reset"):
            handle.result(LONG_S)
    assert idle.submit(prompt="p", request_id="0")
    assert idle.counts().held == 1


def test_closing_ends_what_is_left(idle: Client) -> None:
    stream = idle.submit(prompt="p").stream()
    idle.close()
    with pytest.raises(RequestCancelled, match="closed"):
        next(stream)


def test_a_client_may_be_opened_again(serving: Client) -> None:
    serving.close()
    with serving:
        assert serving.generate(prompt="p", max_tokens=1, timeout=LONG_S)
