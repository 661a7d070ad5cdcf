"""Starting says what is wrong; capacity follows what the server measures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inferq import EngineStartError, Settings, SettingsError
from inferq.engines import create_engine
from tests.engines.openai.pairs import SGLangStandIn, VllmStandIn
from tests.engines.openai.standin import StandIn
from tests.engines.openai.support import ask, engine_for, read, run, settings_for
from tests.engines.openai.test_openai_ends import until


async def refused(settings: Settings, said: str) -> None:
    engine = create_engine(settings)
    with pytest.raises(EngineStartError, match=said):
        await engine.start()
    await engine.stop()


def test_a_server_that_is_not_there_is_waited_for_and_then_named() -> None:
    async def check() -> None:
        server = StandIn()
        await server.start()
        await server.die()
        await refused(
            settings_for(server, start_timeout_s=0.5), "no server within 0.5 s.*cannot be reached"
        )
        engine = create_engine(settings_for(server))
        starting = asyncio.create_task(engine.start())
        await asyncio.sleep(0.1)
        await server.start()
        await starting
        await engine.stop()
        await server.die()

    run(check())


@pytest.mark.parametrize(
    ("models", "openai", "said"),
    [
        ([{"id": "a"}, {"id": "b"}], {}, "openai.model: name one of those .* a, b"),
        ([], {}, "serves: nothing"),
        ([{"id": "a"}], {"model": "tiny"}, "openai.model='tiny': .* serves a"),
        (None, {}, "is it OpenAI-compatible"),
    ],
)
def test_a_server_of_other_models_is_refused(models: Any, openai: Any, said: str) -> None:
    async def check() -> None:
        async with StandIn() as server:
            server.models = models
            await refused(settings_for(server, **openai), said)

    run(check())


def test_something_else_at_the_address_is_refused() -> None:
    async def check() -> None:
        async with StandIn() as server:
            await refused(
                settings_for(server, base_url=server.url.replace("/v1", "/other")), "status 404"
            )

    run(check())


def test_the_servers_own_numbers_count() -> None:
    page = """# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000",sliding_window="None"} 1.0
vllm:nonsense{ NaN
"""

    async def check() -> None:
        async with VllmStandIn() as server:
            server.metrics = page
            async with engine_for(server, max_slots=10, poll_s=0.05) as engine:
                now = engine.capacity()
                assert (now.total_blocks, now.block_size, now.max_model_len) == (1000, 16, 4096)
                assert (now.free_blocks, now.free_slots) == (750, 5)
                server.metrics = page.replace("} 0.25", "} 1.0").replace("} 3.0", "} 30.0")
                await until(lambda: engine.capacity().free_blocks == 0)
                assert engine.capacity().free_slots == 0

    run(check())


def test_what_is_sent_counts_before_the_server_has_measured_it() -> None:
    page = "sglang:num_running_reqs 0\nsglang:token_usage 0.5\nsglang:max_total_num_tokens 4000\n"

    async def check() -> None:
        async with SGLangStandIn() as server:
            server.metrics = page
            async with engine_for(server, max_slots=10) as engine:
                assert engine.capacity().free_blocks == 2000
                server.allowed = asyncio.Semaphore(0)
                request = ask(prompt_token_ids=[1] * 300)
                answer = asyncio.create_task(read(engine.generate(request)))
                await server.call()
                now = engine.capacity()
                assert (now.block_size, now.free_slots) == (1, 9)
                assert now.free_blocks <= 1700
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)
                assert engine.capacity().free_blocks == 2000

    run(check())


def test_own_requests_are_not_counted_twice_once_the_server_has_measured_them() -> None:
    config = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0\n'
    busy = config + "vllm:num_requests_running 1\nvllm:gpu_cache_usage_perc 0.1\n"

    async def check() -> None:
        async with VllmStandIn() as server:
            server.metrics = config + "vllm:num_requests_running 0\nvllm:kv_cache_usage_perc 0\n"
            async with engine_for(server, max_slots=10, poll_s=0.05) as engine:
                server.allowed = asyncio.Semaphore(0)
                answer = asyncio.create_task(read(engine.generate(ask(prompt_token_ids=[1] * 300))))
                await server.call()
                assert engine.capacity().free_blocks == 1000 - 19 - 2
                server.metrics = busy
                await until(lambda: engine.capacity().free_blocks == 900)
                assert engine.capacity().free_slots == 9
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)

    run(check())


def test_a_server_that_is_not_well_gets_nothing() -> None:
    async def check() -> None:
        async with VllmStandIn() as server, engine_for(server, poll_s=0.05) as engine:
            server.is_well = False
            await until(lambda: engine.capacity().free_slots == 0)
            server.is_well = True
            await until(lambda: engine.capacity().free_slots > 0)

    run(check())


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("flavour", ["plain", "llamacpp"])
def test_a_server_that_cannot_hand_off_has_no_such_role(role: Any, flavour: Any) -> None:
    with pytest.raises(SettingsError, match=f"a {role} node needs a server that can hand off"):
        create_engine(Settings(engine="openai", role=role, openai={"flavour": flavour}))


@pytest.mark.parametrize(
    ("openai", "name"),
    [
        ({"base_url": "127.0.0.1:8000"}, "openai.base_url"),
        ({"base_url": "http://user:word@host/v1"}, "openai.base_url"),
        ({"flavour": "tgi"}, "openai.flavour"),
        ({"poll_s": 0}, "openai.poll_s"),
        ({"fastdeploy_decode": {"tp_size": 0}}, "openai.fastdeploy_decode.tp_size"),
        ({"fastdeploy_decode": {"port": 1}}, "openai.fastdeploy_decode.port"),
    ],
)
def test_a_wrong_setting_is_named(openai: Any, name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(engine="openai", openai=openai)
    assert caught.value.names == (name,)


def test_a_fastdeploy_pair_must_be_whole() -> None:
    with pytest.raises(SettingsError, match=r"openai\.fastdeploy_prefill\.host_ip"):
        create_engine(Settings(engine="openai", role="prefill", openai={"flavour": "fastdeploy"}))
    tables = {
        "fastdeploy_prefill": {"host_ip": "10.0.0.1", "tp_size": 4},
        "fastdeploy_decode": {"host_ip": "10.0.0.2", "tp_size": 2},
    }
    with pytest.raises(SettingsError, match="must be 1 or fastdeploy_prefill's, 4"):
        create_engine(
            Settings(engine="openai", role="decode", openai={"flavour": "fastdeploy", **tables})
        )


def test_any_thread_may_ask_while_requests_come_and_go() -> None:
    async def check() -> None:
        async with StandIn() as server, engine_for(server) as engine:
            done = asyncio.Event()

            def ask_all_the_time() -> int:
                count = 0
                while not done.is_set():
                    now = engine.capacity()
                    assert 0 <= now.free_slots <= now.total_slots
                    assert engine.count_tokens(ask(prompt="some text")) >= 1
                    count += 1
                return count

            asked = asyncio.create_task(asyncio.to_thread(ask_all_the_time))
            for turn in range(3):
                await asyncio.gather(
                    *(read(engine.generate(ask(f"{turn}/{n}", max_tokens=2))) for n in range(30))
                )
            done.set()
            assert await asked > 0

    run(check())
