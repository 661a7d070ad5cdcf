from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inferq.engines.base import Capacity
from inferq.routing.admission import AdmissionRule, Load, Size
from inferq.settings import AdmissionSettings
from inferq.worker.claims import Claim, Claims, Phase

RULE = AdmissionRule(
    AdmissionSettings(long_prefill_token_threshold=100), Capacity(64, 100, 100, 8, 8, 2048, 4096)
)


def test_a_claim_counts_in_full_until_the_engine_counts_it() -> None:
    claims = Claims()
    claims.add("1", Claim(Size(128, 16), RULE))
    assert claims.load() == Load(4, 1, 1, 1, 128)
    claims.advance("1", Phase.PREFILL)
    assert claims.load() == Load(0, 0, 1, 1, 128)
    claims.advance("1", Phase.DECODE)
    assert claims.load() == Load()
    assert len(claims) == 1
    claims.remove("1")
    assert claims.load() == Load()
    assert len(claims) == 0


def test_a_claim_ends_once_in_whichever_phase() -> None:
    claims = Claims()
    for phase in Phase:
        claims.add("1", Claim(Size(10, 16), RULE))
        if phase is not Phase.CLAIMED:
            claims.advance("1", phase)
        claims.remove("1")
        claims.remove("1")
        assert claims.load() == Load()


def test_what_is_not_claimed_here_is_ignored() -> None:
    claims = Claims()
    claims.advance("1", Phase.DECODE)
    claims.remove("1")
    assert claims.load() == Load()


def test_what_was_put_back_and_is_taken_again_counts_once() -> None:
    claims = Claims()
    claims.add("1", Claim(Size(10, 16), RULE))
    claims.remove("1")
    claims.add("1", Claim(Size(128, 16), RULE))
    assert claims.load() == Load(4, 1, 1, 1, 128)
    claims.remove("1")
    assert claims.load() == Load()


def test_notes_of_many_threads_are_all_read() -> None:
    claims = Claims()
    names = [str(n) for n in range(400)]
    for name in names:
        claims.add(name, Claim(Size(10, 16), RULE))

    def end(name: str) -> None:
        claims.advance(name, Phase.PREFILL)
        claims.advance(name, Phase.DECODE)
        claims.remove(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(end, names))
    assert claims.load() == Load()
    assert len(claims) == 0


tags = st.sampled_from("abcde")


class ClaimsAgainstDict(RuleBasedStateMachine):
    """A dict of phases does slowly what the claims do."""

    def __init__(self) -> None:
        super().__init__()
        self.claims = Claims()
        self.model: dict[str, tuple[Size, Phase]] = {}

    @rule(tag=tags, prompt=st.integers(1, 300))
    def add(self, tag: str, prompt: int) -> None:
        if tag not in self.model:
            self.claims.add(tag, Claim(Size(prompt, 16), RULE))
            self.model[tag] = (Size(prompt, 16), Phase.CLAIMED)

    @rule(tag=tags)
    def advance(self, tag: str) -> None:
        if tag in self.model:
            size, phase = self.model[tag]
            further = Phase.PREFILL if phase is Phase.CLAIMED else Phase.DECODE
            self.claims.advance(tag, further)
            self.model[tag] = (size, further)

    @rule(tag=tags)
    def remove(self, tag: str) -> None:
        self.claims.remove(tag)
        self.model.pop(tag, None)

    @invariant()
    def the_load_follows_from_the_claims(self) -> None:
        unseen = [size for size, phase in self.model.values() if phase is Phase.CLAIMED]
        sizes = [size for size, phase in self.model.values() if phase is not Phase.DECODE]
        load = self.claims.load()
        assert len(self.claims) == len(self.model)
        assert load == Load(
            unseen_blocks=sum(map(RULE.blocks, unseen)),
            unseen_slots=len(unseen),
            prefills=len(sizes),
            long_prefills=sum(map(RULE.is_long, sizes)),
            prefill_tokens=sum(size.prompt_tokens for size in sizes),
        )


ClaimsAgainstDict.TestCase.settings = settings(max_examples=40, deadline=None)
test_the_load_never_drifts = ClaimsAgainstDict.TestCase
