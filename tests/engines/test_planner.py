from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferq.engines.batching.blocks import BlockPool, blocks_for
from inferq.engines.batching.executor import Limits
from inferq.engines.batching.planner import Planner
from inferq.engines.batching.sequence import Purpose, Sequence
from inferq.messages import Request


class Simulation:
    """Runs a planner step by step; each request wants a number of tokens, then it ends."""

    def __init__(self, limits: Limits, reserved: int = 1) -> None:
        self.limits = limits
        self.planner = Planner(limits, reserved)
        self.wanted: dict[Sequence, int] = {}
        self.preempted: list[tuple[int, list[int]]] = []
        self.started: list[int] = []
        self.rows: list[list[tuple[int, int]]] = []
        self._count = 0

    def add(self, prompt: int, answer: int) -> Sequence:
        request = Request.parse({"request_id": str(self._count), "prompt": "x", "max_tokens": 999})
        sequence = Sequence(self._count, request, [1] * prompt, Purpose.WHOLE)
        self._count += 1
        self.wanted[sequence] = prompt + answer
        self.planner.add(sequence, lambda s: self.started.append(s.number))
        self.check()
        return sequence

    def remove(self, sequence: Sequence) -> None:
        del self.wanted[sequence]
        self.planner.remove(sequence)
        self.check()

    def step(self) -> None:
        planned = self.planner.plan(self._on_preempt)
        self.check()
        tokens = sum(len(row.tokens) for _, row in planned)
        assert tokens <= self.limits.tokens_per_batch
        assert len({row.slot for _, row in planned}) == len(planned)
        self.rows.append([(s.number, len(row.tokens)) for s, row in planned])
        for sequence, row in planned:
            sequence.computed = row.position + len(row.tokens)
            if row.samples:
                sequence.tokens.append(1)
                if len(sequence.tokens) >= self.wanted[sequence]:
                    self.remove(sequence)
        self.planner.start_waiting(lambda s: self.started.append(s.number))
        self.check()

    def run(self, most_steps: int) -> None:
        for _ in range(most_steps):
            if not self.wanted:
                return
            self.step()
        pytest.fail(f"{len(self.wanted)} requests have not ended")

    def check(self) -> None:
        pool = self.planner.blocks
        assert 0 <= pool.free <= pool.total
        assert sum(pool.held(s.number) for s in self.wanted) == pool.total - pool.free
        assert all(pool.held(s.number) == 0 for s in self.planner.waiting)
        assert 0 <= self.planner.free_slots <= self.limits.max_slots

    def _on_preempt(self, victim: Sequence) -> None:
        older = [s.number for s in self.planner.running]
        self.preempted.append((victim.number, older))


def limits(blocks: int = 10, slots: int = 4, batch: int = 16, block_size: int = 4) -> Limits:
    return Limits(block_size, blocks, slots, batch, 1000, 100)


jobs = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(deadline=None)
@given(
    st.integers(8, 14),
    st.integers(1, 4),
    st.integers(1, 16),
    st.lists(st.one_of(jobs, st.sampled_from(["step", "abort"])), max_size=30),
)
def test_all_work_ends_and_all_room_comes_back(
    blocks: int, slots: int, batch: int, script: list[tuple[int, int] | str]
) -> None:
    simulation = Simulation(limits(blocks, slots, batch))
    for act in script:
        if act == "step":
            simulation.step()
        elif act == "abort" and simulation.wanted:
            simulation.remove(list(simulation.wanted)[len(simulation.wanted) // 2])
        elif isinstance(act, tuple):
            simulation.add(*act)
    simulation.run(most_steps=3000)
    assert simulation.planner.free_blocks == blocks
    assert simulation.planner.free_slots == slots
    for victim, others in simulation.preempted:
        assert all(other < victim for other in others), "an older one gave way to a younger"


def test_those_that_decode_come_before_those_that_prefill() -> None:
    simulation = Simulation(limits(batch=4))
    simulation.add(2, 9)
    simulation.step()
    simulation.add(8, 1)
    simulation.step()
    assert simulation.rows[-1] == [(0, 1), (1, 3)]


def test_a_long_prompt_is_computed_in_parts() -> None:
    simulation = Simulation(limits(batch=3))
    simulation.add(8, 1)
    simulation.run(10)
    assert simulation.rows == [[(0, 3)], [(0, 3)], [(0, 2)]]


def test_the_youngest_gives_way_when_blocks_run_out() -> None:
    simulation = Simulation(limits(blocks=4), reserved=0)
    for _ in range(2):
        simulation.add(4, 8)
    simulation.run(60)
    assert simulation.preempted
    assert {victim for victim, _ in simulation.preempted} == {1}


def test_those_that_wait_start_in_order() -> None:
    simulation = Simulation(limits(slots=2))
    for _ in range(6):
        simulation.add(3, 2)
    simulation.run(100)
    assert simulation.started == sorted(simulation.started)


def test_a_big_one_that_waits_is_not_overtaken() -> None:
    simulation = Simulation(limits(blocks=6))
    simulation.add(12, 2)
    simulation.add(16, 2)
    simulation.add(1, 1)
    assert simulation.started == [0]
    assert simulation.planner.free_blocks == 0
    simulation.run(100)
    assert simulation.started == [0, 1, 2]


def test_the_pool_grows_a_holder_or_leaves_all_as_it_was() -> None:
    pool = BlockPool(5)
    assert pool.grow(1, 3)
    assert not pool.grow(2, 3)
    assert pool.held(2) == 0
    assert pool.grow(1, 2)
    assert (pool.held(1), pool.free) == (3, 2)
    pool.release(1)
    pool.release(1)
    assert pool.free == 5


@given(st.integers(0, 1000), st.integers(1, 64))
def test_blocks_hold_the_tokens_with_none_to_spare(tokens: int, size: int) -> None:
    assert blocks_for(tokens, size) * size >= tokens > (blocks_for(tokens, size) - 1) * size
