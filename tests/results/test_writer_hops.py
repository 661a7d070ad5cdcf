"""What the writer does with claims that go on in the other phase, against Redis in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from inferq import Output, Settings
from inferq.cluster.topic import Group, Hop, Outcome, Placed, Settle
from inferq.results.writer import Writer
from tests.support import LONG_S

HOP = Hop(claim=7, base="t.decode", message=b"{}", prompt_tokens=1, max_tokens=1, holds=True)


class Steps:
    """Takes what a Topic would do; ``outcomes`` of outputs come first, ``errors`` of hops."""

    def __init__(self) -> None:
        self.link = self
        self.done: list[str] = []
        self.outcomes: list[int] = []
        self.errors: list[Exception] = []
        self._changed = threading.Condition()

    def close(self) -> None:
        pass

    def emit(self, node: str, inc: str, groups: Sequence[Group]) -> list[int]:
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome.DONE
        for group in groups:
            if outcome == Outcome.DONE:
                self._note(*(["outputs"] if group.blob else []), *(["settle"] * len(group.settles)))
        return [outcome] * len(groups)

    def hop(self, node: str, inc: str, hops: Sequence[Hop]) -> list[Placed | None]:
        if self.errors:
            raise self.errors.pop(0)
        self._note(*["hop"] * len(hops))
        return [None] * len(hops)

    def wait(self, count: int) -> list[str]:
        """Wait until so much was done; all of it, in order."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.done) >= count, LONG_S), self.done
            return list(self.done)

    def _note(self, *what: str) -> None:
        with self._changed:
            self.done += what
            self._changed.notify_all()


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def writer(steps: Steps) -> Iterator[Writer]:
    made = Writer(Settings(), "n", steps, lambda _: None, None, 0)  # type: ignore[arg-type]
    made.begin("n#1")
    yield made
    made.stop(0)


def test_a_claim_goes_on_behind_what_it_has_produced(steps: Steps, writer: Writer) -> None:
    steps.outcomes = [Outcome.FULL, Outcome.FULL]
    writer.add_output("s", Output("r", token_ids=(1,)), at_once=True)
    writer.add_hop("s", HOP)
    writer.start(lambda _: None)
    assert steps.wait(2) == ["outputs", "hop"]


@pytest.mark.parametrize("errors", [0, 2])
def test_the_half_that_was_computed_beside_it_is_settled_behind_it(
    steps: Steps, writer: Writer, errors: int
) -> None:
    steps.errors = [ConnectionError()] * errors
    writer.add_hop("s", HOP)
    writer.add_settle("s", Settle(HOP.claim, "r", failed=True, held=True))
    writer.start(lambda _: None)
    assert steps.wait(2) == ["hop", "settle"]
    assert writer.unsettled() == frozenset()
