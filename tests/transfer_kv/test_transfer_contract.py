"""What every transfer must do: one suite over all of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from inferq.errors import EngineError, KvLost
from inferq.transfer import Fetched
from tests.transfer_kv.kinds import noise, offer, pair_of, run, until

KINDS = ("memory", "memfd", "tcp")
pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("nbytes", [0, 1, 4095, 4097, 3_000_001])
def test_what_is_offered_arrives_and_is_freed(kind: str, nbytes: int) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            data = noise(nbytes)
            offered = await offer(pair.sender, data)
            assert kind in offered.protocols
            assert [(k.request_id, k.nbytes) for k in pair.sender.kept()] == [("r", nbytes)]
            fetched = await pair.receiver.fetch(offered.kv, [kind])
            assert fetched.data == data
            assert fetched.protocol == kind
            assert fetched.seconds > 0
            await until(lambda: not pair.sender.kept())

    run(check)


def test_what_arrived_is_the_receivers_own(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            offered = await offer(pair.sender, noise(10_000))
            fetched = await pair.receiver.fetch(offered.kv, [kind])
            await pair.sender.stop()
            fetched.data[:4] = b"mine"
            assert fetched.data.tobytes() == b"mine" + noise(10_000)[4:]

    run(check)


def test_a_cache_is_had_once(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            offered = await offer(pair.sender, noise(1_000_000))
            got = await asyncio.gather(
                *(pair.receiver.fetch(offered.kv, [kind]) for _ in range(4)),
                return_exceptions=True,
            )
            [fetched] = [one for one in got if isinstance(one, Fetched)]
            assert fetched.data == noise(1_000_000)
            assert sum(isinstance(one, KvLost) for one in got) == 3
            with pytest.raises(KvLost):
                await pair.receiver.fetch(offered.kv, [kind])

    run(check)


def test_many_cross_at_once_and_none_is_mixed_up(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            datas = [noise(50_000 + n, n) for n in range(60)]
            offers = await asyncio.gather(
                *(offer(pair.sender, data, str(n)) for n, data in enumerate(datas))
            )
            got = await asyncio.gather(
                *(pair.receiver.fetch(one.kv, one.protocols) for one in offers)
            )
            assert [bytes(one.data) for one in got] == datas
            await until(lambda: not pair.sender.kept())

    run(check)


def test_what_is_released_is_freed_and_lost(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            released, freed = [await offer(pair.sender, b"kv", n) for n in ("a", "b")]
            await pair.receiver.release(released.kv)
            await until(lambda: [k.request_id for k in pair.sender.kept()] == ["b"])
            await asyncio.to_thread(pair.sender.free, ["b", "unknown"])
            assert pair.sender.kept() == []
            for one in (released, freed):
                with pytest.raises(KvLost):
                    await pair.receiver.fetch(one.kv, [kind])
            await pair.receiver.release(released.kv)

    run(check)


def test_what_nobody_fetches_expires(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind, keep_s=0.2) as pair:
            offered = await offer(pair.sender, b"kv")
            [kept] = pair.sender.kept()
            assert 0 <= kept.age_s < 10
            await until(lambda: not pair.sender.kept())
            with pytest.raises(KvLost):
                await pair.receiver.fetch(offered.kv, [kind])
            await offer(pair.sender, b"again")
            await until(lambda: not pair.sender.kept())

    run(check)


def test_half_of_the_room_is_full_and_beyond_all_of_it_the_oldest_goes(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind, max_bytes=1000) as pair:
            first = await offer(pair.sender, bytes(400), "0")
            before = pair.sender.is_full
            await offer(pair.sender, bytes(400), "1")
            assert (before, pair.sender.is_full) == (False, True)
            await offer(pair.sender, bytes(400), "2")
            assert [k.request_id for k in pair.sender.kept()] == ["1", "2"]
            with pytest.raises(KvLost):
                await pair.receiver.fetch(first.kv, [kind])
            with pytest.raises(EngineError, match=r"transfer\.max_bytes"):
                await offer(pair.sender, bytes(1001))
            pair.sender.free(["1", "2"])
            assert not pair.sender.is_full

    run(check)


def test_the_number_of_caches_is_bounded_too(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind, max_caches=4) as pair:
            for n in range(7):
                await offer(pair.sender, b"", str(n))
                assert pair.sender.is_full is (n >= 2)
            assert [k.request_id for k in pair.sender.kept()] == ["3", "4", "5", "6"]

    run(check)


def test_an_offer_that_is_not_written_is_not_kept(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:

            async def fails(memory: memoryview) -> object:
                raise EngineError("the card is gone")

            with pytest.raises(EngineError, match="card"):
                await pair.sender.offer("r", 10, fails)
            assert pair.sender.kept() == []
            writing = asyncio.Event()

            async def hangs(memory: memoryview) -> None:
                writing.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(pair.sender.offer("r", 10, hangs))
            await writing.wait()
            assert [k.nbytes for k in pair.sender.kept()] == [10]
            task.cancel()
            await asyncio.wait([task])
            assert pair.sender.kept() == []

    run(check)


def test_an_offer_that_is_freed_while_it_is_written_fails(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:

            async def fill(memory: memoryview) -> None:
                pair.sender.free(["r"])

            with pytest.raises(EngineError, match="freed"):
                await pair.sender.offer("r", 10, fill)
            assert pair.sender.kept() == []

    run(check)


@pytest.mark.parametrize(
    "damage",
    [
        {"name": "0" * 32},
        {"name": "xyz"},
        {"name": None},
        {"sum": "0" * 32},
        {"name": ["a"] * 1000},
    ],
)
def test_a_handoff_that_names_no_cache_is_lost(kind: str, damage: dict[str, Any]) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            offered = await offer(pair.sender, b"kv")
            with pytest.raises(KvLost):
                await pair.receiver.fetch({**offered.kv, **damage}, [kind])
            with pytest.raises(KvLost):
                await pair.receiver.fetch({}, [kind])
            await pair.receiver.release({**offered.kv, **damage, "name": 7})
            await pair.receiver.release({})

    run(check)


def test_a_protocol_that_nobody_speaks_is_lost(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            offered = await offer(pair.sender, b"kv")
            for protocols in ((), ("nixl",)):
                with pytest.raises(KvLost):
                    await pair.receiver.fetch(offered.kv, protocols)
            assert len(pair.sender.kept()) == 1

    run(check)


def test_stopping_frees_everything_and_can_be_repeated(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            offered = await offer(pair.sender, b"kv")
            await pair.sender.stop()
            await pair.sender.stop()
            assert pair.sender.kept() == []
            with pytest.raises(KvLost):
                await pair.receiver.fetch(offered.kv, [kind])

    run(check)


def test_any_thread_may_look_and_free_while_caches_come_and_go(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            done, begun = threading.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()

            def look() -> None:
                loop.call_soon_threadsafe(begun.set)
                while not done.is_set():
                    assert all(k.age_s >= 0 for k in pair.sender.kept())
                    assert not pair.sender.is_full
                    pair.sender.free(["nobody"])

            looking = asyncio.create_task(asyncio.to_thread(look))
            await begun.wait()
            for n in range(100):
                offered = await offer(pair.sender, noise(100, n), str(n))
                assert (await pair.receiver.fetch(offered.kv, [kind])).data == noise(100, n)
            done.set()
            await looking

    run(check)
