"""The tracer of ``async def`` tasks, called as the pool calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, signals
from celery.utils.dispatch import Signal

from inferq.results.memory import Store
from inferq.worker.task import AsyncTask
from inferq.worker.tracer import Traced, current_context, trace

STORE = "tracer"


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("tracer", backend=f"inferq-memory://{STORE}", set_as_current=False)
    yield app
    app.close()
    Store.discard(STORE)


@pytest.fixture
def sent() -> Iterator[list[str]]:
    """The names of the signals, in the order in which they were sent."""
    names: list[str] = []
    receivers: list[tuple[Signal, Callable[..., None]]] = []
    for name in ("task_prerun", "task_success", "task_failure", "task_postrun"):

        def receive(_name: str = name, **_: Any) -> None:
            names.append(_name)

        signal: Signal = getattr(signals, name)
        signal.connect(receive, weak=False)
        receivers.append((signal, receive))
    yield names
    for signal, receive in receivers:
        signal.disconnect(receive)


def run(task: Any, *args: Any, with_repr: bool = True, **headers: Any) -> Traced:
    """Trace a task for a message with these arguments and headers."""
    request = {"id": "one", "args": list(args), "kwargs": {}, **headers}
    return asyncio.run(trace(task, "one", request, with_repr=with_repr))


class Recording(AsyncTask):
    """Notes its own handlers' calls."""

    abstract = True
    calls: list[tuple[str, Any]]

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.calls.append(("before_start", task_id))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.calls.append(("on_success", retval))
        raise LookupError("of a handler")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("on_failure", str(exc)))

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        self.calls.append(("after_return", status))


def test_a_value_is_stored_and_described(app: Celery, sent: list[str]) -> None:
    @app.task(shared=False, base=AsyncTask)  # type: ignore[untyped-decorator]
    async def double(n: int) -> int:
        return 2 * n

    failed, described, runtime_s = run(double, 21)
    assert (failed, described) == (0, "42")
    assert runtime_s >= 0
    assert app.AsyncResult("one").result == 42
    assert sent == ["task_prerun", "task_success", "task_postrun"]


def test_nothing_is_described_when_nobody_listens(app: Celery) -> None:
    @app.task(shared=False, base=AsyncTask)  # type: ignore[untyped-decorator]
    async def double(n: int) -> int:
        return 2 * n

    assert run(double, 21, with_repr=False).result == ""


def test_an_error_is_stored(app: Celery, sent: list[str]) -> None:
    @app.task(shared=False, base=AsyncTask)  # type: ignore[untyped-decorator]
    async def fail() -> None:
        raise LookupError("stored")

    failed, info, _ = run(fail)
    assert failed == 1
    assert isinstance(info.exception, LookupError)
    assert app.AsyncResult("one").state == "FAILURE"
    assert sent == ["task_prerun", "task_failure", "task_postrun"]


def test_wrong_arguments_are_a_failure(app: Celery) -> None:
    @app.task(shared=False, base=AsyncTask)  # type: ignore[untyped-decorator]
    async def double(n: int) -> int:
        return 2 * n

    assert run(double).failed == 1
    assert isinstance(app.AsyncResult("one").result, TypeError)
    assert run(double, 1, kwargs=["no mapping"]).failed == 1


def test_a_cancellation_goes_through_and_leaves_no_context(app: Celery, sent: list[str]) -> None:
    @app.task(shared=False, base=AsyncTask)  # type: ignore[untyped-decorator]
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        request = {"id": "one", "args": [], "kwargs": {}}
        with pytest.raises(asyncio.CancelledError):
            await trace(cancelled, "one", request, with_repr=True)
        assert current_context.get() is None

    asyncio.run(main())
    assert app.AsyncResult("one").state == "PENDING"
    assert sent == ["task_prerun", "task_postrun"]


@pytest.mark.parametrize(
    ("of_task", "of_message", "state"),
    [
        (False, None, "SUCCESS"),
        (True, None, "PENDING"),
        (True, False, "SUCCESS"),
        (False, True, "PENDING"),
    ],
)
def test_the_message_says_more_about_its_result_than_the_task(
    app: Celery, of_task: bool, of_message: bool | None, state: str
) -> None:
    @app.task(shared=False, base=AsyncTask, ignore_result=of_task)  # type: ignore[untyped-decorator]
    async def nothing() -> None:
        pass

    run(nothing, ignore_result=of_message)
    assert app.AsyncResult("one").state == state


def test_a_task_that_tracks_its_start_is_started_while_it_runs(app: Celery) -> None:
    @app.task(shared=False, base=AsyncTask, track_started=True)  # type: ignore[untyped-decorator]
    async def look() -> str:
        return str(app.AsyncResult("one").state)

    run(look)
    assert app.AsyncResult("one").result == "STARTED"


def test_the_handlers_of_a_task_are_called_and_their_errors_change_nothing(app: Celery) -> None:
    calls: list[tuple[str, Any]] = []

    @app.task(shared=False, base=Recording, calls=calls)  # type: ignore[untyped-decorator]
    async def maybe(fails: bool) -> str:
        calls.append(("run", fails))
        if fails:
            raise LookupError("as told")
        return "value"

    assert run(maybe, False).failed == 0
    assert calls == [
        ("before_start", "one"),
        ("run", False),
        ("on_success", "value"),
        ("after_return", "SUCCESS"),
    ]
    calls.clear()
    assert run(maybe, True).failed == 1
    assert calls == [
        ("before_start", "one"),
        ("run", True),
        ("on_failure", "as told"),
        ("after_return", "FAILURE"),
    ]
