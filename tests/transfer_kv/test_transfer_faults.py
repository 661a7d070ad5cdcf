"""Connections that break, lie or hang."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferq.errors import KvLost
from inferq.transfer import wire
from inferq.transfer.ticket import Ticket, join_address, split_address
from tests.proxy import Proxy
from tests.support import LONG_S
from tests.transfer_kv.kinds import noise, offer, pair_of, run, sockets, until
from tests.transfer_kv.meddler import Meddler, cut_at, flip_at

DATA = noise(5_000_000)
#: Where the sender's words turn into the bytes of the cache.
HEAD = wire.NONCE_BYTES + 1 + wire.PROOF_BYTES + wire.SIZE.size
PLACES = (0, 1, 20, 40, HEAD - 9, HEAD - 1, HEAD, HEAD + 2_000_000, HEAD + len(DATA) - 1)


@pytest.mark.parametrize("meddle", [cut_at, flip_at])
@pytest.mark.parametrize("byte", PLACES)
def test_a_cut_or_damaged_transfer_is_repeated(meddle: Any, byte: int) -> None:
    async def check() -> None:
        async with pair_of("tcp", timeout_s=1.0) as pair:
            offered = await offer(pair.sender, DATA)
            with Meddler(offered.kv["tcp"], meddle(byte, connections=1)) as meddler:
                fetched = await pair.receiver.fetch(meddler.via(offered.kv), ["tcp"])
                assert meddler.connections > 1
                assert fetched.data == DATA
                await until(lambda: not pair.sender.kept())

    run(check)


@pytest.mark.parametrize("meddle", [cut_at, flip_at])
@pytest.mark.parametrize("byte", [0, 20, HEAD, HEAD + len(DATA) - 1])
def test_what_is_never_whole_is_lost_here_and_kept_there(meddle: Any, byte: int) -> None:
    async def check() -> None:
        async with pair_of("tcp", timeout_s=1.0) as pair:
            offered = await offer(pair.sender, DATA)
            with Meddler(offered.kv["tcp"], meddle(byte)) as meddler:
                with pytest.raises(KvLost):
                    await pair.receiver.fetch(meddler.via(offered.kv), ["tcp"])
                assert 1 < meddler.connections < 10
            assert len(pair.sender.kept()) == 1
            assert (await pair.receiver.fetch(offered.kv, ["tcp"])).data == DATA

    run(check)


def test_a_network_that_passes_nothing_on_is_given_up_in_time() -> None:
    async def check() -> None:
        async with pair_of("tcp", timeout_s=0.3) as pair:
            offered = await offer(pair.sender, DATA)
            with Proxy(int(offered.kv["tcp"].rpartition(":")[2])) as proxy:
                proxy.freeze()
                kv = {**offered.kv, "tcp": f"127.0.0.1:{proxy.port}"}
                with pytest.raises(KvLost):
                    await pair.receiver.fetch(kv, ["tcp"])
            assert (await pair.receiver.fetch(offered.kv, ["tcp"])).data == DATA

    run(check)


@pytest.mark.parametrize("kind", ["memfd", "tcp"])
def test_another_token_is_refused_both_ways(kind: str) -> None:
    async def check() -> None:
        sender, receiver, right = (
            sockets(token=token) for token in ("open sesame", "open barley", "open sesame")
        )
        for one in (sender, receiver, right):
            await one.start()
        try:
            offered = await offer(sender, b"kv")
            with pytest.raises(KvLost, match=r"transfer\.token") as caught:
                await receiver.fetch(offered.kv, [kind])
            assert "sesame" not in repr(caught.value) + repr(vars(sender))
            await receiver.release(offered.kv)
            assert len(sender.kept()) == 1
            assert (await right.fetch(offered.kv, [kind])).data.tobytes() == b"kv"
        finally:
            for one in (sender, receiver, right):
                await one.stop()

    run(check)


@pytest.mark.parametrize("kind", ["memfd", "tcp"])
def test_the_name_of_a_cache_without_its_key_opens_nothing(kind: str) -> None:
    async def check() -> None:
        async with pair_of(kind) as pair:
            offered = await offer(pair.sender, b"kv")
            for field in ("key", "name"):
                forged = {**offered.kv, field: "ab" * (len(offered.kv[field]) // 2)}
                with pytest.raises(KvLost):
                    await pair.receiver.fetch(forged, [kind])
                await pair.receiver.release(forged)
            assert len(pair.sender.kept()) == 1

    run(check)


def test_neither_key_nor_token_crosses_in_the_clear() -> None:
    async def check() -> None:
        async with pair_of("tcp", token="open sesame") as pair:
            offered = await offer(pair.sender, b"kv")
            said = bytearray()

            def listen(number: int, at: int, piece: bytes) -> bytes:
                said.extend(piece)
                return piece

            with Meddler(offered.kv["tcp"], listen) as meddler:
                await pair.receiver.fetch(meddler.via(offered.kv), ["tcp"])
            assert said.endswith(b"kv")
            for secret in (b"open sesame", bytes.fromhex(offered.kv["key"])):
                assert secret not in said

    run(check)


def test_a_size_beyond_the_bound_is_refused_before_anything_is_allocated() -> None:
    async def check() -> None:
        async with pair_of("tcp", max_bytes=1_000_000) as pair:
            offered = await offer(pair.sender, b"kv")
            with pytest.raises(KvLost, match=r"kv\.bytes.*transfer\.max_bytes"):
                await pair.receiver.fetch({**offered.kv, "bytes": 2**50}, ["tcp"])
            with pytest.raises(KvLost, match="2 bytes, not the 1000000"):
                await pair.receiver.fetch({**offered.kv, "bytes": 1_000_000}, ["tcp"])

    run(check)


def test_a_sender_on_another_host_is_not_looked_for_on_this_one() -> None:
    async def check() -> None:
        async with pair_of("memfd") as pair:
            offered = await offer(pair.sender, b"kv")
            elsewhere = {**offered.kv, "host": "another"}
            with pytest.raises(KvLost, match="host"):
                await pair.receiver.fetch(elsewhere, ["memfd"])
            assert (await pair.receiver.fetch(elsewhere, ["memfd", "tcp"])).protocol == "tcp"

    run(check)


def test_a_host_that_only_seems_to_be_the_same_is_reached_by_tcp() -> None:
    async def check() -> None:
        async with pair_of("memfd") as pair:
            offered = await offer(pair.sender, b"kv")
            not_here = {**offered.kv, "unix": "0" * 32}
            fetched = await pair.receiver.fetch(not_here, ["memfd", "tcp"])
            assert fetched.protocol == "tcp"

    run(check)


def test_a_receiver_that_is_cancelled_leaves_the_cache_to_another() -> None:
    async def check() -> None:
        async with pair_of("tcp", timeout_s=LONG_S) as pair:
            offered = await offer(pair.sender, DATA)
            with Proxy(int(offered.kv["tcp"].rpartition(":")[2])) as proxy:
                proxy.freeze()
                kv = {**offered.kv, "tcp": f"127.0.0.1:{proxy.port}"}
                task = asyncio.create_task(pair.receiver.fetch(kv, ["tcp"]))
                await until(lambda: proxy.connections == 1)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                async with asyncio.timeout(LONG_S / 2):
                    await pair.receiver.stop()
            assert (await pair.sender.fetch(offered.kv, ["tcp"])).data == DATA

    run(check)


def test_what_is_freed_while_it_is_sent_does_not_arrive() -> None:
    async def check() -> None:
        async with pair_of("tcp", timeout_s=LONG_S) as pair:
            data = noise(60_000_000)
            offered = await offer(pair.sender, data)
            with Proxy(int(offered.kv["tcp"].rpartition(":")[2])) as proxy:
                kv = {**offered.kv, "tcp": f"127.0.0.1:{proxy.port}"}
                proxy.deafen()
                task = asyncio.create_task(pair.receiver.fetch(kv, ["tcp"]))
                await until(lambda: proxy.connections == 1)
                pair.sender.free(["r"])
                proxy.mend()
                with pytest.raises(KvLost):
                    await task
            assert pair.sender.kept() == []

    run(check)


def knock(address: str) -> socket.socket:
    host, port = split_address(address)
    return socket.create_connection((host, port or 0), LONG_S)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    words=st.lists(
        st.one_of(st.binary(max_size=200), st.sampled_from([wire.MAGIC, b"F", b"R", b"+"])),
        max_size=6,
    ),
    named=st.booleans(),
)
def test_hostile_words_get_nothing_and_harm_nobody(words: list[bytes], named: bool) -> None:
    async def check() -> None:
        async with pair_of("tcp", timeout_s=1.0) as pair:
            offered = await offer(pair.sender, b"secret kv")
            name = bytes.fromhex(offered.kv["name"])
            hello = wire.HELLO.pack(
                wire.MAGIC, wire.FETCH, name, bytes(16), bytes(wire.NONCE_BYTES)
            )
            said = (hello if named else b"") + b"".join(words)

            def speak() -> bytes:
                heard = b""
                with knock(offered.kv["tcp"]) as sock:
                    try:
                        sock.sendall(said)
                        sock.shutdown(socket.SHUT_WR)
                        while piece := sock.recv(4096):
                            heard += piece
                    except OSError:
                        return heard
                return heard

            assert b"secret" not in await asyncio.to_thread(speak)
            assert len(pair.sender.kept()) == 1
            assert (await pair.receiver.fetch(offered.kv, ["tcp"])).data.tobytes() == b"secret kv"

    run(check)


def test_those_who_only_knock_shut_nobody_out() -> None:
    async def check() -> None:
        async with pair_of("tcp", timeout_s=LONG_S, max_connections=4) as pair:
            offered = await offer(pair.sender, b"kv")
            silent = [knock(offered.kv["tcp"]) for _ in range(30)]
            try:
                assert (await pair.receiver.fetch(offered.kv, ["tcp"])).data.tobytes() == b"kv"
            finally:
                for sock in silent:
                    sock.close()

    run(check)


def test_those_who_fall_silent_are_dropped() -> None:
    async def check() -> None:
        async with pair_of("tcp", timeout_s=0.2) as pair:
            offered = await offer(pair.sender, b"kv")

            def silent() -> tuple[bytes, float]:
                started = time.monotonic()
                with knock(offered.kv["tcp"]) as sock:
                    sock.sendall(wire.MAGIC)
                    sock.recv(wire.NONCE_BYTES, socket.MSG_WAITALL)
                    return sock.recv(1), time.monotonic() - started

            heard, waited_s = await asyncio.to_thread(silent)
            assert heard == b""
            assert waited_s < LONG_S / 2

    run(check)


kv_values = st.one_of(
    st.none(), st.integers(), st.text(max_size=80), st.binary(max_size=40), st.lists(st.integers())
)


@given(
    st.dictionaries(
        st.sampled_from(["name", "key", "bytes", "sum", "host", "unix", "tcp", "more"]), kv_values
    )
)
def test_a_hostile_ticket_is_lost_and_its_key_not_shown(kv: dict[str, Any]) -> None:
    key = "c0ffee" * 10 + "1234"
    good = {"name": "0" * 32, "key": key, "bytes": 1, "sum": "0" * 32}
    error = ""
    try:
        ticket = Ticket.parse({**good, **kv}, 1000)
    except KvLost as exc:
        error = str(exc)
    else:
        assert 0 <= ticket.nbytes <= 1000
        assert ticket.key not in repr(ticket)
    assert key not in error
    assert not error or error.startswith("handoff.kv.")


@pytest.mark.parametrize("tcp", ["", "nowhere.invalid:1", "127.0.0.1:x", "127.0.0.1:99999", ":"])
def test_an_address_that_leads_nowhere_is_lost(tcp: str) -> None:
    async def check() -> None:
        async with pair_of("tcp") as pair:
            offered = await offer(pair.sender, b"kv")
            with pytest.raises(KvLost):
                await pair.receiver.fetch({**offered.kv, "tcp": tcp}, ["tcp"])
            await pair.receiver.release({**offered.kv, "tcp": tcp, "host": ""})

    run(check)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "gpu-7.example"])
def test_addresses_survive_being_written_and_read(host: str) -> None:
    assert split_address(join_address(host, 80)) == (host, 80)
    assert split_address(f"[{host}]" if ":" in host else host) == (host, None)
