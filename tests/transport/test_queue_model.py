from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from inferq.transport.gate import RawMessage, Verdict
from inferq.transport.queue import Entry, MemoryQueue, task_id


def message(number: int, request_id: str | None = None) -> RawMessage:
    headers = {} if request_id is None else {"id": request_id}
    return {"headers": headers, "properties": {"delivery_tag": str(number)}}


class Script:
    """A cycle that answers with given verdicts, then takes."""

    def __init__(self, verdicts: list[Verdict]) -> None:
        self._verdicts = list(verdicts)

    def judge(self, message: RawMessage) -> Verdict:
        return self._verdicts.pop(0) if self._verdicts else Verdict.TAKE


class QueueAgainstList(RuleBasedStateMachine):
    """A sorted list does slowly what the queue does."""

    taken: Bundle[Entry] = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.queue = MemoryQueue()
        self.model: list[Entry] = []
        self.count = 0

    def add(self, entry: Entry) -> None:
        self.queue.put(entry)
        self.model.append(entry)
        self.model.sort(key=lambda e: (e.priority, e.number))

    @rule(priority=st.integers(0, 9), is_task=st.booleans())
    def put(self, priority: int, is_task: bool) -> None:
        number = self.count
        self.count += 1
        self.add(Entry(number, priority, message(number, f"r{number}" if is_task else None)))

    @rule(target=taken)
    def take(self) -> Any:
        entry = self.queue.take(None)
        assert entry == (self.model.pop(0) if self.model else None)
        return multiple() if entry is None else entry

    @rule(target=taken, verdicts=st.lists(st.sampled_from(Verdict), max_size=6))
    def take_judged(self, verdicts: list[Verdict]) -> Any:
        entry = self.queue.take(Script(verdicts))
        script = Script(verdicts)
        for waiting in self.model:
            verdict = script.judge(waiting.message)
            if verdict is Verdict.TAKE:
                assert entry == waiting
                self.model.remove(waiting)
                return waiting
            if verdict is Verdict.STOP:
                break
        assert entry is None
        return multiple()

    @rule(entry=consumes(taken))
    def put_back(self, entry: Entry) -> None:
        self.add(entry)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        request_id = f"r{data.draw(st.integers(0, self.count))}"
        waiting = [e for e in self.model if task_id(e.message) == request_id]
        assert self.queue.remove(request_id) is bool(waiting)
        self.model = [e for e in self.model if e not in waiting]

    @rule()
    def clear(self) -> None:
        assert self.queue.clear() == len(self.model)
        self.model = []

    @invariant()
    def holds_the_same_in_the_same_order(self) -> None:
        assert list(self.queue) == self.model
        assert len(self.queue) == len(self.model)


QueueAgainstList.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
test_the_queue_does_what_a_sorted_list_does = QueueAgainstList.TestCase


def test_all_put_back_in_any_order_are_in_their_places() -> None:
    queue = MemoryQueue()
    for number in range(20):
        queue.put(Entry(number, 0, message(number)))
    taken = [queue.take(None) for _ in range(10)]
    for entry in [*taken[5:], *taken[:5]]:
        assert entry is not None
        queue.put(entry)
    assert [entry.number for entry in queue] == list(range(20))


def test_what_is_no_task_has_no_id() -> None:
    assert task_id({}) is None
    assert task_id({"headers": None}) is None
    assert task_id({"headers": {"id": 5}}) is None
    assert task_id(message(1, "r")) == "r"
