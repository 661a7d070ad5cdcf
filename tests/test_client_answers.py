"""What a caller gets from a client in local mode."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferq import AsyncClient, Client, ClientClosed, Output, Settings
from tests.support import LONG_S, fast, wait_until


def test_a_stream_and_a_result_hold_the_same_answer(client: Client) -> None:
    handle = client.submit(prompt="hello", max_tokens=20, seed=1)
    outputs = list(handle.stream())
    result = handle.result(LONG_S)
    assert result.token_ids == tuple(t for o in outputs for t in o.token_ids)
    assert result.text == "".join(o.text for o in outputs)
    assert len(result.token_ids) == 20
    assert result.finish_reason == outputs[-1].finish_reason == "length"


def test_outputs_are_numbered_by_their_first_token(client: Client) -> None:
    outputs = list(client.stream(prompt="hello", max_tokens=9))
    position = 0
    for output in outputs:
        assert output.index == position
        position += len(output.token_ids)
    assert [o.finished for o in outputs] == [False] * (len(outputs) - 1) + [True]


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(client: Client) -> None:
    first, again, other = (
        client.generate(prompt="p", max_tokens=16, seed=seed, timeout=LONG_S) for seed in (1, 1, 2)
    )
    assert first.token_ids == again.token_ids != other.token_ids


def test_an_answer_does_not_depend_on_what_runs_beside_it(client: Client) -> None:
    alone = client.generate(prompt="p", max_tokens=30, seed=3, timeout=LONG_S)
    crowd = [client.submit(prompt=f"p{n}", max_tokens=30, seed=n) for n in range(40)]
    among = client.submit(prompt="p", max_tokens=30, seed=3)
    assert among.result(LONG_S).token_ids == alone.token_ids
    for handle in crowd:
        handle.result(LONG_S)


def test_stop_strings_end_an_answer_and_are_not_shown(client: Client) -> None:
    whole = client.generate(prompt="p", max_tokens=30, seed=3, timeout=LONG_S).text
    stop = whole[20:26]
    result = client.generate(prompt="p", max_tokens=30, seed=3, stop=stop, timeout=LONG_S)
    assert result.finish_reason == "stop"
    assert result.text == whole[: whole.index(stop)]


def test_timings_are_consistent(client: Client) -> None:
    timings = client.generate(prompt="p", max_tokens=10, timeout=LONG_S).timings
    assert 0 <= timings.queue_s <= timings.ttft_s <= timings.e2e_s
    assert timings.tpot_s >= 0


def test_many_threads_share_a_client(client: Client) -> None:
    def ask(number: int) -> tuple[int, ...]:
        return client.generate(
            prompt=f"{number % 7}", max_tokens=12, seed=5, timeout=LONG_S
        ).token_ids

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(200)))
    assert len({answers[n] for n in range(7)}) == 7
    assert all(answers[n] == answers[n % 7] for n in range(200))


def test_one_handle_is_read_by_many_threads(client: Client) -> None:
    handle = client.submit(prompt="p", max_tokens=200)
    with ThreadPoolExecutor(8) as threads:
        streams = list(threads.map(lambda _: [o.index for o in handle.stream()], range(8)))
    assert streams == [streams[0]] * 8
    assert len(streams[0]) == 200


def test_four_hundred_requests_are_in_flight_at_once() -> None:
    held = fast(simulated={"max_slots": 400, "speedup": 0.001, "total_blocks": 4000})
    with Client(held) as client:
        handles = [client.submit(prompt="p", max_tokens=4) for _ in range(400)]
        wait_until(lambda: client.counts().running == 400)
        assert client.counts().waiting == 0
        assert not any(handle.done for handle in handles)


def test_a_batch_is_submitted_in_order(client: Client) -> None:
    handles = client.submit_many({"prompt": f"{n}", "max_tokens": 2} for n in range(10))
    assert [len(handle.result(LONG_S).token_ids) for handle in handles] == [2] * 10


def test_a_result_that_is_not_there_in_time_is_a_timeout_and_the_request_goes_on() -> None:
    with Client(fast(simulated={"speedup": 0.5})) as client:
        handle = client.submit(prompt="p", max_tokens=2)
        with pytest.raises(TimeoutError):
            handle.result(timeout=0.01)
        assert len(handle.result(LONG_S).token_ids) == 2


def test_an_async_client_answers_like_the_sync_one() -> None:
    async def ask() -> tuple[list[Output], tuple[int, ...]]:
        async with AsyncClient(fast()) as client:
            outputs = [o async for o in client.stream(prompt="p", max_tokens=8, seed=2)]
            handles = await client.submit_many(
                [{"prompt": "p", "max_tokens": 8, "seed": 2} for _ in range(50)]
            )
            results = await asyncio.gather(*(handle.result(LONG_S) for handle in handles))
            assert len({result.token_ids for result in results}) == 1
            return outputs, results[0].token_ids

    outputs, tokens = asyncio.run(ask())
    assert tuple(t for o in outputs for t in o.token_ids) == tokens


def test_two_clients_in_one_process_do_not_meet() -> None:
    with Client(fast()) as one, Client(fast()) as other:
        a = one.submit(prompt="p", request_id="same", max_tokens=4, seed=1)
        b = other.submit(prompt="p", request_id="same", max_tokens=6, seed=1)
        assert len(a.result(LONG_S).token_ids) == 4
        assert len(b.result(LONG_S).token_ids) == 6


def test_a_client_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    with Client(fast()) as client:
        client.submit(prompt="p", max_tokens=1000)
    assert set(threading.enumerate()) == before


def test_a_client_may_be_opened_again() -> None:
    client = Client(fast())
    for _ in range(3):
        with client:
            assert client.generate(prompt="p", max_tokens=1, timeout=LONG_S)


def test_a_closed_client_says_so() -> None:
    client = Client(fast())
    with pytest.raises(ClientClosed):
        client.submit(prompt="p")
    with client:
        pass
    with pytest.raises(ClientClosed):
        client.counts()


def test_a_stock_producer_needs_nothing_but_json(client: Client) -> None:
    app = client.app
    sent = app.send_task(
        "inferq.prefill", kwargs={"prompt": "p", "max_tokens": 5, "seed": 1}, serializer="json"
    )
    answer = sent.get(timeout=LONG_S)
    ours = client.generate(prompt="p", max_tokens=5, seed=1, timeout=LONG_S)
    assert tuple(answer["token_ids"]) == ours.token_ids
    assert answer["text"] == ours.text


def test_prefill_and_decode_as_two_tasks_continue_an_answer(client: Client) -> None:
    whole = client.generate(prompt="p", max_tokens=8, seed=1, timeout=LONG_S).token_ids
    handoff = {
        "request_id": "r",
        "prompt_tokens": 1,
        "token_ids": list(whole[:1]),
        "kv": {},
    }
    sent = client.app.send_task(
        "inferq.decode", kwargs={"handoff": handoff, "prompt": "p", "max_tokens": 8, "seed": 1}
    )
    assert tuple(sent.get(timeout=LONG_S)["token_ids"]) == whole


def test_the_default_client_needs_no_settings_file() -> None:
    with Client(Settings(scheduler_name="local", engine="simulated")) as client:
        assert client.counts().held == 0
