from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError

from inferq.messages import Output
from inferq.results import memory
from inferq.results.memory import MemoryBackend, Store

LONG_S = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(memory, "time", fake)
    return fake


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    name = uuid.uuid4().hex
    app = Celery("test", set_as_current=False)
    app.conf.update(result_backend=f"inferq-memory://{name}", result_serializer="json")
    assert isinstance(app.backend, MemoryBackend)
    yield app.backend
    app.close()
    Store.discard(name)


class Waits(Store):
    """A store that counts how often somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def wait(self, version: int, timeout_s: float | None) -> None:
        self.waits += 1
        super().wait(version, timeout_s)


def test_a_value_is_kept_until_it_expires(clock: Clock) -> None:
    store = Store()
    store.set("a", b"1", ttl_s=10)
    clock.now += 9.9
    assert store.get("a") == b"1"
    clock.now += 0.2
    assert store.get("a") is None


def test_expired_values_do_not_pile_up(clock: Clock) -> None:
    store = Store()
    for n in range(50):
        store.set(str(n), b"", ttl_s=10)
    clock.now += 11
    store.set("new", b"", ttl_s=10)
    assert len(store) == 1


def test_the_oldest_goes_when_there_are_too_many() -> None:
    store = Store()
    store.bound = 2
    for key in "abac":
        store.set(key, key.encode(), ttl_s=LONG_S)
    assert [store.get(key) for key in "abc"] == [b"a", None, b"c"]


def test_a_deleted_value_is_gone() -> None:
    store = Store()
    store.set("a", b"1", ttl_s=LONG_S)
    store.delete("a")
    store.delete("a")
    assert store.get("a") is None


def test_the_same_name_is_the_same_store_until_it_is_discarded() -> None:
    name = uuid.uuid4().hex
    store = Store.named(name)
    assert Store.named(name) is store
    Store.discard(name)
    assert Store.named(name) is not store
    Store.discard(name)


def test_a_result_is_read_by_who_asks_later(backend: MemoryBackend) -> None:
    backend.store_result("t", {"text": "hi"}, "SUCCESS")
    assert backend.app.AsyncResult("t").get(timeout=LONG_S) == {"text": "hi"}


def test_a_failure_is_raised_at_who_asks(backend: MemoryBackend) -> None:
    backend.mark_as_failure("t", ValueError("bad luck"))
    with pytest.raises(ValueError, match="bad luck"):
        backend.app.AsyncResult("t").get(timeout=LONG_S)


def test_a_result_that_comes_later_wakes_who_waits_without_polling(
    backend: MemoryBackend,
) -> None:
    backend.store = waits = Waits()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(backend.app.AsyncResult("t").get, timeout=LONG_S)
        backend.store_result("other", 1, "SUCCESS")
        backend.store_result("t", 5, "SUCCESS")
        assert future.result(LONG_S) == 5
    assert waits.waits <= 3


def test_a_result_that_does_not_come_is_a_timeout(backend: MemoryBackend) -> None:
    backend.store = waits = Waits()
    with pytest.raises(CeleryTimeoutError):
        backend.app.AsyncResult("t").get(timeout=0.05)
    assert waits.waits <= 2


def test_results_expire_when_the_application_says(backend: MemoryBackend, clock: Clock) -> None:
    backend.expires = 10
    backend.store_result("t", 5, "SUCCESS")
    clock.now += 11
    assert backend.app.AsyncResult("t").state == "PENDING"


def test_a_forgotten_result_is_gone(backend: MemoryBackend) -> None:
    backend.store_result("t", 5, "SUCCESS")
    backend.app.AsyncResult("t").forget()
    assert backend.app.AsyncResult("t").state == "PENDING"
    assert len(backend.store) == 0


def test_several_values_are_read_at_once(backend: MemoryBackend) -> None:
    backend.set("a", "text")
    backend.set(b"b", b"bytes")
    assert backend.mget(["a", b"b", "c"]) == [b"text", b"bytes", None]


class Inbox:
    def __init__(self, wants: bool) -> None:
        self.wants = wants
        self.got: list[Output] = []

    def deliver(self, output: Output) -> bool:
        self.got.append(output)
        return self.wants


@pytest.mark.parametrize("wants", [True, False])
def test_an_output_reaches_the_inbox_of_its_origin(backend: MemoryBackend, wants: bool) -> None:
    inbox, other = Inbox(wants), Inbox(wants)
    backend.store.inboxes.update({"me": inbox, "you": other})
    assert backend.send("me", Output("r")) is wants
    assert inbox.got == [Output("r")]
    assert other.got == []


@pytest.mark.parametrize("origin", ["", "stock-celery-producer"])
def test_an_origin_that_does_not_stream_wants_everything(
    backend: MemoryBackend, origin: str
) -> None:
    assert backend.send(origin, Output("r"))
