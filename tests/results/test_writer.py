"""The writer between a node's tasks and Redis, against a stream in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack
import pytest
import redis

from inferq import Output, Settings
from inferq.cluster.topic import Fenced, Group, Outcome, Settle
from inferq.results.writer import Writer
from tests.support import LONG_S, wait_until


class Stream:
    """Takes what a Topic's ``emit`` would write; ``answers`` come first."""

    def __init__(self) -> None:
        self.link = self
        self.calls: list[list[Group]] = []
        self.answers: list[BaseException | list[int]] = []
        self.called = threading.Condition()

    def close(self) -> None:
        pass

    def emit(self, node: str, inc: str, groups: Sequence[Group]) -> list[int]:
        answer = self.answers.pop(0) if self.answers else [Outcome.DONE] * len(groups)
        with self.called:
            if not isinstance(answer, BaseException):
                self.calls.append(
                    [
                        group._replace(stream=f"{group.stream}@{inc}")
                        for group, outcome in zip(groups, answer, strict=True)
                        if outcome != Outcome.FULL
                    ]
                )
            self.called.notify_all()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def wait_calls(self, count: int) -> list[list[Group]]:
        with self.called:
            assert self.called.wait_for(lambda: len(self.calls) >= count, LONG_S)
            return list(self.calls)

    def indices(self) -> list[int]:
        """Indices of all outputs, in the order they were written."""
        return [
            output[2]
            for call in list(self.calls)
            for group in call
            if group.blob
            for output in msgpack.unpackb(group.blob)
        ]

    def settles(self) -> list[tuple[int, str]]:
        return [settle[:2] for call in list(self.calls) for g in call for settle in g.settles]


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def gone() -> list[str]:
    return []


@pytest.fixture
def fenced() -> list[str]:
    return []


Make = Callable[..., Writer]


@pytest.fixture
def make(stream: Stream, gone: list[str], fenced: list[str]) -> Iterator[Make]:
    made: list[Writer] = []

    def build(*, start: bool = True, flush_s: float = 0.003, **settings: Any) -> Writer:
        values = Settings(cluster={"flush_s": flush_s}, **settings)
        writer = Writer(values, "n", stream, gone.append, None, 0)  # type: ignore[arg-type]
        writer.begin("n#1")
        made.append(writer)
        if start:
            writer.start(fenced.append)
        return writer

    yield build
    for writer in made:
        writer.stop(0)


def output(index: int) -> Output:
    return Output("r", 0, index, (index,))


def test_the_first_output_does_not_wait_for_others(make: Make, stream: Stream) -> None:
    writer = make(flush_s=1.0)
    writer.add_output("s", output(0), at_once=True)
    [[group]] = stream.wait_calls(1)
    assert group.stream == "s@n#1"


def test_later_outputs_are_collected(make: Make, stream: Stream) -> None:
    writer = make(flush_s=0.2)
    for index in range(50):
        writer.add_output("s", output(index), at_once=False)
    stream.wait_calls(1)
    wait_until(lambda: len(stream.indices()) == 50)
    assert len(stream.calls) < 5


def test_a_claim_ends_with_its_last_output_never_before(make: Make, stream: Stream) -> None:
    writer = make(start=False, scheduler_writer_batch_size=10)
    for index in range(24):
        writer.add_output("s", output(index), at_once=False)
    writer.add_settle("s", Settle(7, "r"), output(24), [("key", b"value", 60)])
    writer.start(lambda _inc: None)
    wait_until(lambda: stream.settles() == [(7, "r")])
    assert stream.indices() == list(range(25))
    [last] = stream.calls[-1]
    assert last.results == [("key", b"value", 60)]
    assert msgpack.unpackb(last.blob)[-1][2] == 24


def test_nothing_is_lost_or_reordered_while_redis_is_away(make: Make, stream: Stream) -> None:
    stream.answers = [redis.ConnectionError("gone"), redis.TimeoutError(), OSError()]
    writer = make()
    for index in range(30):
        writer.add_output("s", output(index), at_once=index == 0)
    writer.add_settle("s", Settle(1, "r"))
    wait_until(lambda: stream.settles() == [(1, "r")])
    assert stream.indices() == list(range(30))


def test_a_full_stream_is_tried_again_and_holds_up_no_other(make: Make, stream: Stream) -> None:
    writer = make(start=False)
    writer.add_output("slow", output(0), at_once=True)
    writer.add_output("fast", output(1), at_once=True)
    stream.answers = [[Outcome.FULL, Outcome.DONE]]
    writer.start(lambda _inc: None)
    wait_until(lambda: sorted(stream.indices()) == [0, 1])
    assert stream.indices() == [1, 0]


def test_an_origin_that_is_gone_is_reported(make: Make, stream: Stream, gone: list[str]) -> None:
    stream.answers = [[Outcome.GONE]]
    make().add_output("s", output(0), at_once=True)
    wait_until(lambda: gone == ["s"])


def test_what_a_lost_incarnation_left_is_dropped(
    make: Make, stream: Stream, fenced: list[str]
) -> None:
    writer = make(start=False)
    writer.add_output("s", output(0), at_once=True)
    stream.answers = [Fenced()]
    writer.start(fenced.append)
    wait_until(lambda: fenced == ["n#1"])
    writer.begin("n#2")
    writer.add_output("s", output(5), at_once=True)
    stream.wait_calls(1)
    assert stream.indices() == [5]
    assert stream.calls[0][0].stream == "s@n#2"


def test_a_stream_with_a_backlog_is_congested_until_it_is_written(
    make: Make, stream: Stream
) -> None:
    writer = make(start=False, scheduler_writer_batch_size=10)
    for index in range(100):
        writer.add_output("s", output(index), at_once=False)
    assert writer.is_congested("s")
    assert not writer.is_congested("other")
    writer.start(lambda _inc: None)
    wait_until(lambda: len(stream.indices()) == 100)
    assert not writer.is_congested("s")


def test_stopping_writes_what_is_left(make: Make, stream: Stream) -> None:
    writer = make(flush_s=1.0)
    for index in range(20):
        writer.add_output("s", output(index), at_once=False)
    writer.add_settle("s", Settle(1, "r"))
    writer.stop(LONG_S)
    assert stream.indices() == list(range(20))
    assert stream.settles() == [(1, "r")]


def test_what_cannot_be_sent_is_the_end_of_its_request_alone(make: Make, stream: Stream) -> None:
    writer = make(start=False)
    writer.add_output("s", output(0), at_once=False)
    writer.add_output("s", Output("bad", 0, 0, (object(),)), at_once=False)  # type: ignore[arg-type]
    writer.start(lambda _inc: None)
    [[group]] = stream.wait_calls(1)
    good, bad = (Output.from_wire(row) for row in msgpack.unpackb(group.blob))
    assert good.token_ids == (0,)
    assert bad.request_id == "bad"
    assert bad.error is not None
