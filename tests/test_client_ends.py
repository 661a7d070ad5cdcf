"""Every way in which a request ends, and that its memory and its room are free afterwards."""

from __future__ import annotations

import gc
import logging
import threading
import time

import pytest

from inferq import (
    Client,
    DuplicateRequest,
    QueueFull,
    RequestCancelled,
    RequestExpired,
    RequestFailed,
    SchedulerUnavailable,
    UnknownRequest,
)
from inferq.engines import Capacity
from inferq.engines.noop import NoopEngine
from tests.support import LONG_S, fast, slow, wait_until


def test_a_running_request_is_cancelled_and_its_room_is_free() -> None:
    with Client(slow()) as client:
        handle = client.submit(prompt="p", max_tokens=1000)
        wait_until(lambda: client.counts().free_slots == 0)
        assert handle.cancel()
        with pytest.raises(RequestCancelled):
            handle.result(LONG_S)
        wait_until(lambda: client.counts().free_slots == 1 and client.counts().running == 0)
        assert client.counts().free_blocks == client.counts().total_blocks


def test_a_waiting_request_is_cancelled_without_ever_running() -> None:
    with Client(slow()) as client:
        client.submit(prompt="p")
        wait_until(lambda: client.counts().running == 1)
        waiting = client.submit(prompt="p")
        assert client.counts().waiting == 1
        assert client.cancel(waiting.request_id)
        assert client.counts().waiting == 0
        with pytest.raises(RequestCancelled):
            next(waiting.stream())


def test_cancelling_twice_or_after_the_end_does_nothing(client: Client) -> None:
    handle = client.submit(prompt="p", max_tokens=2)
    handle.result(LONG_S)
    assert not handle.cancel()
    with pytest.raises(UnknownRequest, match=handle.request_id):
        client.cancel(handle.request_id)


def test_cancelling_an_unknown_id_names_it(client: Client) -> None:
    with pytest.raises(UnknownRequest, match="nobody"):
        client.cancel("nobody")


def test_an_id_may_be_used_again_after_it_was_cancelled(client: Client) -> None:
    for _ in range(3):
        handle = client.submit(prompt="p", request_id="again", max_tokens=4000)
        handle.cancel()
    assert client.generate(prompt="p", request_id="again", max_tokens=2, timeout=LONG_S)


def test_leaving_a_stream_cancels_its_request() -> None:
    with Client(slow()) as client:
        stream = client.stream(prompt="p")
        wait_until(lambda: client.counts().running == 1)
        stream.close()
        wait_until(lambda: client.counts().running == 0)
        assert client.counts().held == 0


def test_an_abandoned_iterator_frees_everything(client: Client) -> None:
    for output in client.stream(prompt="p", max_tokens=4000):
        assert output.token_ids
        break
    gc.collect()
    wait_until(lambda: client.counts().running == 0)
    assert client.counts().held == 0
    assert client.counts().free_blocks == client.counts().total_blocks


def test_a_duplicate_id_is_refused_and_the_first_request_is_not_affected() -> None:
    with Client(slow()) as client:
        first = client.submit(prompt="p", request_id="one")
        with pytest.raises(DuplicateRequest, match="one"):
            client.submit(prompt="q", request_id="one")
        with pytest.raises(DuplicateRequest):
            client.submit_many([{"prompt": "p", "request_id": "two"}] * 2)
        assert client.counts().held == 1
        assert not first.done


def test_a_put_over_the_bound_names_exactly_those_that_do_not_fit() -> None:
    with Client(slow(scheduler_max_size=3)) as client:
        client.submit(prompt="p", request_id="a")
        with pytest.raises(QueueFull) as caught:
            client.submit_many({"prompt": "p", "request_id": name} for name in "bcde")
        assert caught.value.rejected == ("d", "e")
        assert caught.value.accepted == ("b", "c")
        assert client.counts().held == 3
        for name in "bc":
            assert client.handle(name).cancel()
        client.submit_many({"prompt": "p", "request_id": name} for name in "de")


def test_expired_requests_make_room_for_new_ones() -> None:
    with Client(slow(scheduler_max_size=2)) as client:
        soon = time.time() + 0.2
        old = [client.submit(prompt="p", deadline=soon) for _ in range(2)]
        for handle in old:
            with pytest.raises(RequestExpired):
                handle.result(LONG_S)
        client.submit_many({"prompt": "p"} for _ in range(2))


def test_a_request_expires_while_it_waits_runs_or_is_not_read() -> None:
    with Client(slow(scheduler_ttl=1)) as client:
        running = client.submit(prompt="p")
        waiting = client.submit(prompt="p")
        for handle in (running, waiting):
            with pytest.raises(RequestExpired):
                handle.result(LONG_S)
        wait_until(lambda: client.counts().running == client.counts().waiting == 0)
        assert client.counts().held == 0
    with Client(fast(scheduler_ttl=1)) as client:
        unread = client.submit(prompt="p", max_tokens=100)
        wait_until(lambda: client.counts().unread == 1)
        wait_until(lambda: client.counts().held == 0)
        with pytest.raises(RequestExpired, match="before its end was read"):
            unread.result(LONG_S)


def test_a_deadline_of_its_own_ends_a_request_before_the_common_one() -> None:
    with Client(slow()) as client:
        handle = client.submit(prompt="p", deadline=time.time() + 0.1)
        with pytest.raises(RequestExpired):
            handle.result(LONG_S)


def test_reset_ends_everything_and_the_scheduler_goes_on() -> None:
    with Client(slow()) as client:
        handles = [client.submit(prompt="p", request_id=f"{n}") for n in range(20)]
        wait_until(lambda: client.counts().running == 1)
        assert client.reset() == 20
        for handle in handles:
            with pytest.raises(RequestCancelled, match="reset"):
                handle.result(LONG_S)
        wait_until(lambda: client.counts().running == 0)
        counts = client.counts()
        assert (counts.held, counts.waiting, counts.unread) == (0, 0, 0)
        assert client.submit(prompt="p", request_id="0")


def test_closing_the_client_ends_what_is_left() -> None:
    with Client(slow()) as client:
        handles = [client.submit(prompt="p") for _ in range(5)]
    for handle in handles:
        with pytest.raises(RequestCancelled, match="closed"):
            handle.result(LONG_S)


def test_a_blocked_reader_is_told_when_the_client_closes() -> None:
    client = Client(slow())
    with client:
        stream = client.stream(prompt="p")
        client.close()
        with pytest.raises(RequestCancelled):
            next(stream)


def test_priorities_go_first_and_equals_in_order() -> None:
    with Client(fast(simulated={"max_slots": 1, "speedup": 20})) as client:
        blocker = client.submit(prompt="p", max_tokens=40)
        wait_until(lambda: client.counts().running == 1)
        ended: list[str] = []
        order = [("low", 9), ("a", 5), ("b", 5), ("high", 0)]
        handles = [
            client.submit(prompt="p", max_tokens=1, request_id=n, priority=p) for n, p in order
        ]
        blocker.result(LONG_S)
        for handle in handles:
            handle.result(LONG_S)
        ended = sorted(
            (handle.request_id for handle in handles),
            key=lambda name: handles[[n for n, _ in order].index(name)].result().timings.e2e_s,
        )
        assert ended == ["high", "a", "b", "low"]


def test_a_failed_request_says_why_with_a_code(client: Client) -> None:
    sent = client.app.send_task("inferq.prefill", kwargs={"prompt": "p", "max_tokens": 0})
    with pytest.raises(Exception, match="max_tokens"):
        sent.get(timeout=LONG_S)
    assert RequestFailed("r", "why", "internal").error_code == "internal"


class Crashing(NoopEngine):
    """Lets the consumer crash once ``armed``."""

    armed = False

    def capacity(self) -> Capacity:
        if Crashing.armed and threading.current_thread().name.startswith("inferq-inferq@"):
            raise RuntimeError("capacity unknown")
        return super().capacity()


def ask_until_an_error(client: Client) -> None:
    while True:
        client.submit(prompt="p").result(LONG_S)


def test_a_crash_of_the_worker_is_told_to_all_who_wait_and_to_all_who_come(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("inferq.worker.node.create_engine", Crashing)
    with caplog.at_level(logging.CRITICAL), Client(fast()) as client:
        assert client.generate(prompt="p", max_tokens=1, timeout=LONG_S)
        monkeypatch.setattr(Crashing, "armed", True)
        # A look that began before may still let one through.
        with pytest.raises((RequestFailed, SchedulerUnavailable), match="capacity unknown"):
            ask_until_an_error(client)
        with pytest.raises(SchedulerUnavailable, match="capacity unknown"):
            client.submit(prompt="p")
        assert client.counts().held == 0
    assert "has crashed" in caplog.text
