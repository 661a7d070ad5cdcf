"""The admission rule in Lua says what routing/admission.py says."""

from __future__ import annotations

from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from inferq.cluster.topic import Item, Room, Topic
from inferq.engines.base import Capacity
from inferq.routing.admission import AdmissionRule, Budget, Load, Size
from inferq.settings import AdmissionSettings
from tests.cluster.support import ORIGIN, Server

RULES = st.builds(
    AdmissionSettings,
    reserved_output_blocks=st.integers(0, 5),
    enable_chunked_prefill=st.booleans(),
    max_num_partial_prefills=st.integers(1, 4),
    max_long_partial_prefills=st.integers(1, 3),
    long_prefill_token_threshold=st.integers(0, 100),
    max_num_batched_tokens=st.none() | st.integers(1, 500),
)
CAPACITIES = st.builds(
    Capacity,
    block_size=st.integers(1, 64),
    total_blocks=st.just(40),
    free_blocks=st.integers(0, 40),
    total_slots=st.just(8),
    free_slots=st.integers(1, 8),
    tokens_per_batch=st.integers(1, 500),
    max_model_len=st.integers(10, 3000),
)
LOADS = st.builds(
    Load,
    unseen_blocks=st.integers(0, 3),
    unseen_slots=st.just(0),
    prefills=st.integers(0, 3),
    long_prefills=st.integers(0, 1),
    prefill_tokens=st.integers(0, 200),
)
SIZES = st.builds(Size, st.integers(1, 600), st.integers(1, 100))


@examples(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RULES, CAPACITIES, LOADS, st.lists(SIZES, min_size=1, max_size=12))
def test_the_script_takes_what_the_rule_takes(
    topic: Topic,
    server: Server,
    settings: AdmissionSettings,
    capacity: Capacity,
    load: Load,
    sizes: list[Size],
) -> None:
    server.flushall()
    rule = AdmissionRule(settings, capacity)
    budget = rule.budget(capacity, load)
    room = Room(
        slots=budget.slots,
        blocks=budget.blocks,
        tokens=budget.prefill_tokens,
        prefills=budget.prefills,
        longs=budget.long_prefills,
        idle=budget.idle,
        chunked=settings.enable_chunked_prefill,
        block_size=rule.block_size,
        reserved=settings.reserved_output_blocks,
        total_blocks=rule.total_blocks,
        long_from=rule.long_from,
        longest=rule.longest,
    )
    items = [Item(b'{"body": ""}', str(i), 1, 60, *size) for i, size in enumerate(sizes)]
    topic.submit(ORIGIN, "t", items)
    inc = topic.register("n", "{}")
    look = topic.claim("n", inc, room, reserve="", largest=rule.longest)
    assert [int(taken.request_id) for taken in look.taken] == _expected(rule, budget, sizes)


def _expected(rule: AdmissionRule, budget: Budget, sizes: list[Size]) -> list[int]:
    expected = []
    for i, size in enumerate(sizes):
        if not budget.has_slots:
            break
        if rule.never_fits(size):
            expected.append(i)
        elif budget.fits(size):
            budget.spend(size)
            expected.append(i)
    return expected
