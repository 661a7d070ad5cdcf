"""Answers that many share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from inferq.monitoring.flower.shared import Shared, TooMany


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as running:
        yield running


class Question:
    """Counts how often it was asked; waits until it may answer."""

    def __init__(self, *, may_answer: bool = True) -> None:
        self.asked = 0
        self.gate = threading.Event()
        if may_answer:
            self.gate.set()

    def __call__(self) -> dict[str, Any]:
        self.asked += 1
        self.gate.wait(60)
        return {"answer": self.asked}


def test_one_answer_serves_all_who_wait_for_it(executor: ThreadPoolExecutor) -> None:
    question = Question(may_answer=False)

    async def ask() -> list[Any]:
        shared = Shared(executor)
        asking = [asyncio.ensure_future(shared.get("k", question)) for _ in range(20)]
        await asyncio.sleep(0)
        question.gate.set()
        return await asyncio.gather(*asking)

    assert asyncio.run(ask()) == [{"answer": 1}] * 20
    assert question.asked == 1


def test_an_answer_is_kept_while_it_is_fresh(executor: ThreadPoolExecutor) -> None:
    question = Question()

    async def ask(fresh_s: float) -> list[Any]:
        shared = Shared(executor, fresh_s=fresh_s)
        return [await shared.get("k", question) for _ in range(3)]

    assert asyncio.run(ask(600)) == [{"answer": 1}] * 3
    assert asyncio.run(ask(0)) == [{"answer": 2}, {"answer": 3}, {"answer": 4}]


def test_what_was_changed_is_asked_for_anew(executor: ThreadPoolExecutor) -> None:
    question = Question()

    async def ask() -> list[Any]:
        shared = Shared(executor, fresh_s=600)
        before = await shared.get("k", question)
        shared.forget()
        return [before, await shared.get("k", question)]

    assert asyncio.run(ask()) == [{"answer": 1}, {"answer": 2}]


def test_who_leaves_does_not_take_the_answer_along(executor: ThreadPoolExecutor) -> None:
    question = Question(may_answer=False)

    async def ask() -> Any:
        shared = Shared(executor)
        leaves, stays = (asyncio.ensure_future(shared.get("k", question)) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        question.gate.set()
        return await stays

    assert asyncio.run(ask()) == {"answer": 1}


def test_questions_that_wait_are_bounded(executor: ThreadPoolExecutor) -> None:
    question = Question(may_answer=False)

    async def ask() -> int:
        shared = Shared(executor, most=3)
        asking = [asyncio.ensure_future(shared.get(n, question)) for n in range(10)]
        await asyncio.sleep(0)
        question.gate.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        return sum(isinstance(answer, TooMany) for answer in answers)

    assert asyncio.run(ask()) == 7


def test_a_failure_is_everybodys_and_is_not_kept(executor: ThreadPoolExecutor) -> None:
    def fail() -> dict[str, Any]:
        raise ValueError("no")

    async def ask() -> list[Any]:
        shared = Shared(executor, fresh_s=600)
        failed = await asyncio.gather(
            *(shared.get("k", fail) for _ in range(2)), return_exceptions=True
        )
        return [*failed, await shared.get("k", Question())]

    first, second, after = asyncio.run(ask())
    assert isinstance(first, ValueError)
    assert isinstance(second, ValueError)
    assert after == {"answer": 1}
