"""What is taken when: seen from outside, on a small engine."""

from __future__ import annotations

from inferq import Client
from tests.support import LONG_S, fast, wait_until

#: 40 blocks of 64 tokens; a step of some milliseconds.
SMALL = {"total_blocks": 40, "max_slots": 32, "speedup": 20}


def test_only_what_fits_is_taken_and_the_rest_waits_in_the_queue() -> None:
    with Client(fast(simulated={**SMALL, "speedup": 0.001})) as client:
        # Ten blocks each: eight for the prompt, two reserved for the answer.
        handles = [client.submit(prompt="x" * 512, max_tokens=10) for _ in range(10)]
        wait_until(lambda: client.counts().running == 4)
        assert client.counts().waiting == 6
        assert client.counts().free_blocks == 0
        assert handles[0].cancel()
        wait_until(lambda: client.counts().waiting == 5)


def test_a_big_request_is_not_starved_by_a_stream_of_small_ones() -> None:
    settings = fast(simulated=SMALL, admission={"pass_by_s": 0.05})
    with Client(settings) as client:
        small = [client.submit(prompt="x", max_tokens=30) for _ in range(16)]
        big = client.submit(prompt="x" * 2300, max_tokens=30)
        while not big.done:
            small.append(client.submit(prompt="x", max_tokens=30))
            small[-12].result(LONG_S)
            assert len(small) < 2000
        assert len(big.result(LONG_S).token_ids) == 30
        for handle in small:
            handle.result(LONG_S)


def test_a_big_request_does_not_starve_small_ones_while_it_waits() -> None:
    settings = fast(simulated=SMALL, admission={"pass_by_s": 3600})
    with Client(settings) as client:
        holder = client.submit(prompt="x" * 64, max_tokens=2000)
        outputs = holder.stream()
        next(outputs)
        big = client.submit(prompt="x" * 2400, max_tokens=2)
        for handle in [client.submit(prompt="x", max_tokens=2) for _ in range(50)]:
            handle.result(LONG_S)
        assert not big.done
        holder.cancel()
        assert len(big.result(LONG_S).token_ids) == 2


def test_what_can_never_fit_fails_at_once_though_the_engine_is_full() -> None:
    with Client(fast(simulated={**SMALL, "speedup": 0.001})) as client:
        for _ in range(5):
            client.submit(prompt="x" * 512)
        wait_until(lambda: client.counts().waiting > 0)
        sent = client.app.send_task("inferq.prefill", kwargs={"prompt": "x" * 5000})
        result = sent.get(timeout=LONG_S, propagate=False)
        assert "exceed" in str(result)
