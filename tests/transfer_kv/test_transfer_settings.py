"""Which settings are refused, and what they make."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from inferq import EngineStartError, Settings, SettingsError
from inferq.settings import TransferSettings
from inferq.transfer import create_transfer
from inferq.transfer import sockets as module
from inferq.transfer.memory import MemoryTransfer
from inferq.transfer.sockets import SocketTransfer
from tests.transfer_kv.kinds import offer, run


def splitwise(**transfer: Any) -> Settings:
    return Settings(scheduler_name="splitwise", transfer=transfer)


def test_caches_stay_in_memory_unless_nodes_are_split() -> None:
    assert isinstance(create_transfer(Settings()), MemoryTransfer)
    assert isinstance(create_transfer(splitwise()), SocketTransfer)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"listen": "no port"}, "transfer.listen"),
        ({"listen": "localhost"}, "transfer.listen"),
        ({"listen": "127.0.0.1:99999"}, "transfer.listen"),
        ({"listen": "127.0.0.1:0", "advertise": "a b"}, "transfer.advertise"),
        ({"listen": "0.0.0.0:0"}, "transfer.token"),
        ({"listen": "[::]:0"}, "transfer.token"),
        ({"listen": "gpu-7.example:7000"}, "transfer.token"),
        ({"listen": "0.0.0.0:0", "token": "t"}, "transfer.advertise"),
        ({"timeout_s": 0}, "transfer.timeout_s"),
        ({"max_bytes": 0}, "transfer.max_bytes"),
        ({"max_caches": 1}, "transfer.max_caches"),
    ],
)
def test_what_cannot_work_is_refused_by_name(options: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        create_transfer(splitwise(**options))
    assert caught.value.names == (name,)


def test_the_token_is_not_shown() -> None:
    settings = splitwise(token="open sesame", listen="127.0.0.1:0")
    transfer = create_transfer(settings)
    assert "sesame" not in repr(settings) + repr(settings.transfer) + repr(vars(transfer))


def test_a_port_that_is_taken_is_said_at_start() -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            transfer = create_transfer(splitwise(listen=address))
            with pytest.raises(EngineStartError, match=address):
                await transfer.start()
            await transfer.stop()

    run(check)


def test_others_are_told_the_advertised_address() -> None:
    async def check() -> None:
        for advertise, expected in (("gpu-7", "gpu-7:"), ("gpu-7:70", "gpu-7:70"), ("", "127.")):
            transfer = create_transfer(splitwise(listen="127.0.0.1:0", advertise=advertise))
            await transfer.start()
            tcp = (await offer(transfer, b"kv")).kv["tcp"]
            await transfer.stop()
            assert tcp.startswith(expected)
            assert int(tcp.rpartition(":")[2]) > 0

    run(check)


def test_without_an_address_there_is_no_tcp() -> None:
    async def check() -> None:
        transfer = create_transfer(splitwise())
        await transfer.start()
        offered = await offer(transfer, b"kv")
        await transfer.stop()
        assert offered.protocols == ("memfd",)
        assert "tcp" not in offered.kv

    run(check)


def test_without_memfd_caches_cross_by_tcp_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_shared_buffers", lambda: False)

    async def check() -> None:
        sender, receiver = (SocketTransfer(TransferSettings()) for _ in range(2))
        for one in (sender, receiver):
            await one.start()
        offered = await offer(sender, b"kv")
        assert offered.protocols == sender.protocols == ("tcp",)
        assert offered.kv["tcp"].startswith("127.0.0.1:")
        fetched = await receiver.fetch(offered.kv, offered.protocols)
        assert fetched.data.tobytes() == b"kv"
        for one in (sender, receiver):
            await one.stop()

    asyncio.run(check())
