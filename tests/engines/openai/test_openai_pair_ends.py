"""A pair that cannot go on: both servers end, and the request begins anew or fails."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from inferq import EngineError, InvalidRequest
from inferq.engines.base import Received
from inferq.errors import KvLost
from inferq.messages import Handoff
from tests.engines.openai.pair_support import PAIRS, both_halves, first_half, pair_of
from tests.engines.openai.pairs import STAND_INS, VllmStandIn
from tests.engines.openai.support import ask, engine_for, read, run, tokens

each = pytest.mark.parametrize("flavour", PAIRS)
meeting = pytest.mark.parametrize("flavour", ["sglang", "fastdeploy"])


def test_two_servers_that_do_not_agree_are_never_spliced() -> None:
    async def check() -> None:
        async with pair_of("vllm") as pair:
            assert isinstance(pair.decode_server, VllmStandIn)
            pair.decode_server.differs = True
            with pytest.raises(KvLost, match="began with another token"):
                await both_halves(pair, ask())
            # The next attempt says nothing early, so there is nothing to differ from.
            before, after = await both_halves(pair, ask())
            assert before == []
            assert len(tokens(after)) == 6

    run(check())


def test_a_cache_that_is_gone_is_lost() -> None:
    async def check() -> None:
        async with pair_of("vllm") as pair:
            _, handoff, rest = await first_half(pair, ask())
            await rest.aclose()
            assert len(pair.fabric.leaked) == 1
            pair.fabric.kept.clear()
            with pytest.raises(KvLost, match="the remote KV cache is not there"):
                await read(pair.decode.decode(ask(), handoff, Received()))
            assert pair.idle()

    run(check())


def test_a_vllm_without_a_connector_is_found_out() -> None:
    async def check() -> None:
        async with pair_of("vllm") as pair:
            assert isinstance(pair.prefill_server, VllmStandIn)
            pair.prefill_server.keeps = False
            with pytest.raises(EngineError, match="--kv-transfer-config"):
                await read(pair.prefill.prefill(ask()))

    run(check())


@each
def test_a_handoff_of_something_else_is_refused(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour) as pair:
            for kv in ({}, {"key": "local"}, {"kv_transfer_params": {}, "name": 5}):
                handoff = Handoff(request_id="r", prompt_tokens=3, kv=kv)
                with pytest.raises(InvalidRequest, match="handoff"):
                    await read(pair.decode.decode(ask(), handoff, Received()))
            assert not pair.decode_server.calls
            assert pair.idle()

    run(check())


def test_a_fastdeploy_pair_is_fixed() -> None:
    async def check() -> None:
        async with pair_of("fastdeploy") as pair:
            _, handoff, rest = await first_half(pair, ask())
            await rest.aclose()
            info = {**handoff.kv["disaggregate_info"], "decode_connector_port": 9999}
            wrong = handoff.model_copy(update={"kv": {**handoff.kv, "disaggregate_info": info}})
            with pytest.raises(
                EngineError, match=r"paired with the decode server 127\.0\.0\.1:9999"
            ):
                await read(pair.decode.decode(ask(), wrong, Received()))

    run(check())


@each
def test_a_cancelled_prefill_ends_at_its_server(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour) as pair:
            pair.prefill_server.allowed = asyncio.Semaphore(0)
            prefilling = asyncio.create_task(read(pair.prefill.prefill(ask())))
            call = await pair.prefill_server.call()
            assert pair.prefill.abort("r")
            assert (await prefilling)[-1].finish_reason == "cancelled"
            await call.gone.wait()
            assert pair.idle()
            assert pair.fabric.leaked == []

    run(check())


@each
def test_a_cancelled_decode_ends_at_its_server(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour) as pair:
            pair.decode_server.allowed = asyncio.Semaphore(2)
            _, handoff, rest = await first_half(pair, ask())
            prefilling = asyncio.create_task(read(rest))
            async with aclosing(pair.decode.decode(ask(), handoff, Received())) as chunks:  # type: ignore[type-var]
                await anext(chunks)
            await (await pair.decode_server.call()).gone.wait()
            assert await prefilling == []
            assert pair.idle()

    run(check())


@meeting
def test_when_decode_goes_prefill_fails(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour) as pair:
            pair.prefill_server.gate = asyncio.Event()
            _, handoff, rest = await first_half(pair, ask())
            decoding = asyncio.create_task(read(pair.decode.decode(ask(), handoff, Received())))
            call = await pair.decode_server.call()
            assert pair.decode.abort("r")
            assert (await decoding)[-1].finish_reason == "cancelled"
            await call.ended.wait()
            pair.prefill_server.gate.set()
            with pytest.raises(EngineError, match="the other side has gone"):
                await read(rest)
            assert pair.idle()

    run(check())


@meeting
def test_when_prefill_goes_decode_has_lost_the_cache(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour) as pair:
            _, handoff, rest = await first_half(pair, ask())
            prefilling = asyncio.create_task(read(rest))
            call = await pair.prefill_server.call()
            assert pair.prefill.abort("r")
            assert (await prefilling)[-1].finish_reason == "cancelled"
            await call.ended.wait()
            with pytest.raises(KvLost, match="the other side has gone"):
                await read(pair.decode.decode(ask(), handoff, Received()))
            assert pair.idle()

    run(check())


@meeting
def test_a_pair_of_different_prompts_fails_on_both_sides(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour) as pair:
            _, handoff, rest = await first_half(pair, ask())
            other = ask(prompt="Another sea is")
            results = await asyncio.gather(
                read(rest),
                read(pair.decode.decode(other, handoff, Received())),
                return_exceptions=True,
            )
            assert [isinstance(result, EngineError) for result in results] == [True, True]

    run(check())


@each
def test_a_decode_server_that_dies_before_it_began_has_lost_the_cache(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour, retries=0) as pair:
            _, handoff, rest = await first_half(pair, ask())
            prefilling = asyncio.create_task(read(rest))
            await pair.decode_server.die()
            with pytest.raises(KvLost, match="decode did not begin"):
                await read(pair.decode.decode(ask(), handoff, Received()))
            await pair.prefill.stop()
            await asyncio.gather(prefilling, return_exceptions=True)

    run(check())


@each
def test_a_decode_server_that_dies_later_fails_the_request(flavour: str) -> None:
    async def check() -> None:
        async with pair_of(flavour) as pair:
            pair.decode_server.allowed = asyncio.Semaphore(2)
            _, handoff, rest = await first_half(pair, ask())
            prefilling = asyncio.create_task(read(rest))
            chunks = pair.decode.decode(ask(), handoff, Received())
            await anext(chunks)
            await pair.decode_server.die()
            with pytest.raises(EngineError) as caught:
                await read(chunks)
            assert not isinstance(caught.value, KvLost)
            await prefilling

    run(check())


def test_a_plain_server_neither_prefills_nor_decodes() -> None:
    async def check() -> None:
        async with STAND_INS["plain"]() as server, engine_for(server) as engine:
            handoff = Handoff(request_id="r", prompt_tokens=3)
            with pytest.raises(EngineError, match="cannot hand off"):
                await read(engine.prefill(ask()))
            with pytest.raises(EngineError, match="cannot go on"):
                await read(engine.decode(ask(), handoff, Received()))
            assert engine.resumes is False

    run(check())
