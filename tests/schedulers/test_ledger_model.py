from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inferq.errors import DuplicateRequest, UnknownRequest
from inferq.messages import Output, Request
from inferq.schedulers import ledger as ledger_module
from inferq.schedulers.ledger import Ledger

BOUND = 4
ids = st.sampled_from("abcdef")


class LedgerAgainstDict(RuleBasedStateMachine):
    """A dict of id to [deadline, has ended] does slowly what the ledger does."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = mock.Mock()
        self.now = 1000
        self.tick(0)
        self.patch = mock.patch.object(ledger_module, "time", self.clock)
        self.patch.start()
        self.ledger = Ledger(BOUND)
        self.model: dict[str, tuple[int, bool]] = {}

    def teardown(self) -> None:
        self.patch.stop()

    @rule(seconds=st.integers(0, 8))
    def tick(self, seconds: int) -> None:
        self.now += seconds
        self.clock.time.return_value = self.clock.monotonic.return_value = float(self.now)

    @rule(chosen=st.lists(ids, min_size=1, max_size=4), life=st.integers(1, 20))
    def admit(self, chosen: list[str], life: int) -> None:
        deadline = self.now + life
        requests = [
            Request.parse({"request_id": i, "prompt": "x", "deadline": float(deadline)})
            for i in chosen
        ]
        if len(set(chosen)) < len(chosen) or any(i in self.model for i in chosen):
            with pytest.raises(DuplicateRequest):
                self.ledger.admit(requests)
            return
        room = BOUND - len(self.model)
        admitted = self.ledger.admit(requests)
        assert [reply.request_id for reply in admitted.replies] == chosen[:room]
        assert [request.request_id for request in admitted.rejected] == chosen[room:]
        self.model.update(dict.fromkeys(chosen[:room], (deadline, False)))

    @rule(request_id=ids, last=st.booleans())
    def deliver(self, request_id: str, last: bool) -> None:
        deadline, ended = self.model.get(request_id, (0, True))
        output = Output(request_id, finished=last, finish_reason="stop" if last else None)
        assert self.ledger.deliver(output) is not ended
        if not ended:
            self.model[request_id] = (deadline, last)

    @rule(request_id=ids)
    def cancel(self, request_id: str) -> None:
        if request_id not in self.model:
            with pytest.raises(UnknownRequest):
                self.ledger.cancel(request_id, "why")
        elif self.model[request_id][1]:
            assert not self.ledger.cancel(request_id, "why")
        else:
            assert self.ledger.cancel(request_id, "why")
            del self.model[request_id]

    @rule(request_id=ids)
    def forget(self, request_id: str) -> None:
        self.ledger.forget(request_id)
        self.model.pop(request_id, None)

    @rule()
    def expire(self) -> None:
        due = {i for i, (deadline, _) in self.model.items() if deadline <= self.now}
        assert set(self.ledger.expire()) == due
        for request_id in due:
            del self.model[request_id]

    @rule()
    def clear(self) -> None:
        live = [i for i, (_, ended) in self.model.items() if not ended]
        assert sorted(self.ledger.clear("why")) == sorted(live)
        self.model.clear()

    @invariant()
    def holds_the_same(self) -> None:
        assert len(self.ledger) == len(self.model)
        assert self.ledger.unread == sum(ended for _, ended in self.model.values())
        for request_id, (_, ended) in self.model.items():
            assert (self.ledger.find(request_id).end is not None) is ended

    @invariant()
    def nobody_expires_unnoticed(self) -> None:
        if self.model:
            due = self.ledger.next_deadline()
            assert due is not None
            assert due <= min(deadline for deadline, _ in self.model.values())


LedgerAgainstDict.TestCase.settings = settings(max_examples=60, deadline=None)
test_the_ledger_does_what_a_dict_does = LedgerAgainstDict.TestCase
