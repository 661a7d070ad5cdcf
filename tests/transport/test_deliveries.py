"""Claimed messages between the taker, Celery's consumer and their ends."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

import pytest

from inferq.transport.deliveries import Deliveries, Delivery, Ends, tag_of_claim


def delivery(claim: int, request_id: str = "") -> Delivery:
    return Delivery(tag_of_claim(claim), claim, request_id or f"r{claim}", 0, "origin", "stream")


class Log:
    """The ends that were reported, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def ends(self) -> Ends:
        return Ends(
            settled=lambda d: self.seen.append(("settled", d.claim)),
            put_back=lambda d: self.seen.append(("put back", d.claim)),
            refused=lambda d: self.seen.append(("refused", d.claim)),
        )


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def deliveries(log: Log) -> Iterator[Deliveries]:
    made = Deliveries(log.ends())
    yield made
    made.close()


def message(number: int) -> dict[str, Any]:
    where = {"delivery_info": {"routing_key": "t.prefill"}}
    return {"body": str(number), "properties": where}


def is_readable(deliveries: Deliveries) -> bool:
    return bool(select.select([deliveries.fileno()], [], [], 0)[0])


def test_the_consumer_is_woken_until_everything_was_fetched(deliveries: Deliveries) -> None:
    assert not is_readable(deliveries)
    for number in range(3):
        deliveries.add(delivery(number), message(number))
    deliveries.flush()
    assert is_readable(deliveries)
    assert [m["body"] for m, _ in deliveries.take(2)] == ["0", "1"]
    assert is_readable(deliveries)
    assert deliveries.take(2) == [(message(2), "t.prefill")]
    assert not is_readable(deliveries)


def test_a_claim_ends_once_whatever_comes_after(deliveries: Deliveries, log: Log) -> None:
    deliveries.add(delivery(1), message(1))
    deliveries.settle("claim-1")
    deliveries.settle("claim-1")
    deliveries.put_back("claim-1")
    deliveries.refuse("claim-1")
    assert log.seen == [("settled", 1)]
    assert len(deliveries) == 0


@pytest.mark.parametrize("end", ["settle", "put_back", "refuse"])
def test_what_was_lost_with_the_lease_has_no_end_of_its_own(
    deliveries: Deliveries, log: Log, end: str
) -> None:
    deliveries.add(delivery(1), message(1))
    deliveries.flush()
    assert [d.claim for d in deliveries.drop_all()] == [1]
    getattr(deliveries, end)("claim-1")
    assert log.seen == []
    assert deliveries.take(10) == []
    assert deliveries.find("r1") is None


def test_a_request_claimed_again_is_found_by_its_newest_claim(deliveries: Deliveries) -> None:
    deliveries.add(delivery(1, "r"), message(1))
    deliveries.add(delivery(2, "r"), message(2))
    deliveries.settle("claim-1")
    found = deliveries.find("r")
    assert found is not None
    assert found.claim == 2


def test_tags_of_kombu_are_not_ours(deliveries: Deliveries) -> None:
    assert deliveries.owns("claim-5")
    assert not deliveries.owns("0b8d0f5e-1e1b-4a57-8f6c-0e6f3b1d1c2a")
