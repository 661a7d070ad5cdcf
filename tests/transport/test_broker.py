from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferq.transport.broker import MAX_BROADCASTS, Broker, priority_of
from inferq.transport.gate import RawMessage

LONG_S = 60.0


def message(tag: str, request_id: str | None = None, priority: object = 0) -> RawMessage:
    headers = {} if request_id is None else {"id": request_id}
    return {"headers": headers, "properties": {"delivery_tag": tag, "priority": priority}}


def drain(broker: Broker, queue: str = "q") -> list[str]:
    tags = []
    while (taken := broker.take(queue, None, record=False)) is not None:
        tags.append(taken["properties"]["delivery_tag"])
    return tags


def test_many_producers_and_consumers_pass_each_message_exactly_once() -> None:
    broker = Broker()
    each, producers = 500, 4
    left = threading.Semaphore(each * producers)

    def produce(number: int) -> None:
        for n in range(each):
            broker.put("q", message(f"{number}-{n}", f"{number}-{n}"))

    def consume() -> list[str]:
        got = []
        while left.acquire(blocking=False):
            while True:
                version = broker.version
                taken = broker.take("q", None, record=True)
                if taken is not None:
                    break
                assert broker.wait(version, LONG_S)
            got.append(taken["properties"]["delivery_tag"])
            broker.settle(got[-1])
        return got

    with ThreadPoolExecutor(6) as pool:
        consumers = [pool.submit(consume) for _ in range(2)]
        list(pool.map(produce, range(producers)))
        got = [future.result(LONG_S) for future in consumers]
    assert sorted(got[0] + got[1]) == sorted(f"{p}-{n}" for p in range(4) for n in range(each))
    for part in got:
        for producer in range(producers):
            numbers = [int(t.split("-")[1]) for t in part if t.startswith(f"{producer}-")]
            assert numbers == sorted(numbers)
    assert broker.claims() == 0
    assert broker.size("q") == 0


def test_a_put_back_message_returns_to_its_place_and_says_so() -> None:
    broker = Broker()
    for tag in "abc":
        broker.put("q", message(tag))
    for _ in range(2):
        broker.take("q", None, record=True)
    broker.put_back("b")
    broker.put_back("a")
    first = broker.take("q", None, record=False)
    assert first is not None
    assert first["properties"]["delivery_info"]["redelivered"] is True
    assert first["properties"]["delivery_tag"] == "a"
    assert drain(broker) == ["b", "c"]


def test_only_a_claim_can_be_put_back_and_only_once() -> None:
    broker = Broker()
    broker.put("q", message("a"))
    broker.take("q", None, record=True)
    assert broker.claims() == 1
    broker.put_back("a")
    broker.put_back("a")
    broker.put_back("never")
    assert (broker.size("q"), broker.claims()) == (1, 0)
    broker.take("q", None, record=True)
    broker.settle("a")
    broker.put_back("a")
    assert (broker.size("q"), broker.claims()) == (0, 0)


def test_the_message_of_a_request_is_removed_wherever_it_waits() -> None:
    broker = Broker()
    broker.put("p", message("a", "r1"))
    broker.put("q", message("b", "r2"))
    assert broker.remove("r2")
    assert not broker.remove("r2")
    assert (broker.size("p"), broker.size("q")) == (1, 0)


def test_events_that_nobody_reads_are_bounded_and_the_oldest_go_first() -> None:
    broker = Broker()
    for n in range(MAX_BROADCASTS + 5):
        broker.put("events", message(str(n)))
    assert broker.size("events") == MAX_BROADCASTS
    assert drain(broker, "events")[0] == "5"


def test_requests_are_not_dropped_by_the_bound_on_events() -> None:
    broker = Broker()
    for n in range(MAX_BROADCASTS + 5):
        broker.put("q", message(str(n), f"r{n}"))
    assert broker.size("q") == MAX_BROADCASTS + 5


@pytest.mark.parametrize(
    ("given", "meant"),
    [(0, 0), (9, 9), (10, 9), (-1, 0), ("3", 3), ("high", 0), (None, 0), ([], 0)],
)
def test_a_priority_is_a_number_from_0_to_9(given: object, meant: int) -> None:
    assert priority_of(message("a", priority=given)) == meant


@pytest.mark.parametrize("given", [float("inf"), float("nan")])
def test_a_priority_that_is_no_finite_number_counts_as_0(given: float) -> None:
    assert priority_of(message("a", priority=given)) == 0


def test_a_message_without_a_priority_goes_first() -> None:
    assert priority_of({"properties": {}}) == 0
    assert priority_of({}) == 0


def test_the_same_name_is_the_same_broker_until_it_is_discarded() -> None:
    name = uuid.uuid4().hex
    first = Broker.named(name)
    assert Broker.named(name) is first
    Broker.discard(name)
    assert Broker.named(name) is not first
    Broker.discard(name)
    Broker.discard(name)


def test_who_waits_is_woken() -> None:
    broker = Broker()
    version = broker.version
    with ThreadPoolExecutor(1) as pool:
        woken = pool.submit(broker.wait, version, LONG_S)
        broker.wake()
        assert woken.result(LONG_S)


def test_a_change_before_the_wait_is_not_missed() -> None:
    broker = Broker()
    version = broker.version
    broker.put("q", message("a"))
    before = time.monotonic()
    assert broker.wait(version, LONG_S)
    assert time.monotonic() - before < LONG_S / 2
    assert not broker.wait(broker.version, 0.01)


def test_a_queue_can_be_purged_and_deleted() -> None:
    broker = Broker()
    broker.declare("q")
    assert broker.exists("q")
    broker.put("q", message("a"))
    assert broker.purge("q") == 1
    assert broker.purge("none") == 0
    broker.delete("q")
    assert not broker.exists("q")
