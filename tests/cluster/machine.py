"""The bench on which the scripts and their model do the same things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import redis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
)

from inferq.cluster.keys import staged_key
from inferq.cluster.link import Link
from inferq.cluster.topic import Topic
from tests.cluster.model import (
    BATCH,
    LOOKAHEAD,
    MAX_ATTEMPTS,
    MIN_LOAD,
    STEPS,
    Message,
    Model,
    Node,
)
from tests.cluster.support import (
    BASE,
    LOADS,
    PREFIX,
    Member,
    Server,
    body_of,
    letters,
    settings_of,
    waiting,
)

#: (name, slots, blocks, longest): small ones, and one that can hold more.
KINDS = [("a", 2, 8, 9), ("b", 3, 10, 9), ("c", 4, 20, 21)]
NAMES = st.sampled_from([kind[0] for kind in KINDS])
STEP = st.sampled_from([1, 1, 1, 2, 4])
PROMPTS = st.integers(1, 24)


class Bench(RuleBasedStateMachine):
    """A topic and its model, side by side, and all that is compared between them."""

    port: int

    def __init__(self) -> None:
        super().__init__()
        self.server: Server = redis.Redis(port=self.port, decode_responses=True)
        self.server.flushall()
        settings = settings_of(
            self.port,
            cluster={"max_attempts": MAX_ATTEMPTS, "claim_batch": BATCH},
            admission={"lookahead": LOOKAHEAD},
            scheduler_min_load_score=MIN_LOAD,
        )
        self.topic = Topic(settings, Link(settings))
        self.model = Model()
        self.members: dict[str, Member] = {}
        self.count = 0
        self.live: set[str] = set()
        #: Nodes whose room grew, or who were told to look again.
        self.due: set[str] = set()

    def teardown(self) -> None:
        self.topic.link.close()
        self.server.close()

    def _join(self, name: str, slots: int, blocks: int, longest: int) -> None:
        self.members[name] = Member(self.topic, name, longest=longest)
        self.model.nodes[name] = Node(name, slots, blocks, longest)
        self.model.nodes[name].queue = self.model.orphans.pop(name, self.model.nodes[name].queue)
        self.due.add(name)

    def _look(self, name: str) -> bool:
        node, member = self.model.nodes[name], self.members[name]
        self.due.discard(name)
        member.bell(self.server)
        if node.state != "ready":
            self.model.return_staged(node)
            member.look(take=False)
            return False
        look = member.look(
            largest=self.model.largest, slots=node.free_slots, blocks=node.free_blocks
        )
        before = self._count_shared()
        dropped = [m.body for m in self._all_messages() if m.body in self.model.cancelled]
        expected = self.model.claim(node)
        got = [(body_of(taken.raw), taken.source) for taken in look.taken]
        assert got == expected
        assert [taken.attempt for taken in look.taken] == [
            node.claims[body].attempt for body, _ in got
        ]
        assert len({taken.claim for taken in look.taken}) == len(got)
        self._forget(dropped)
        reaches_further = before >= LOOKAHEAD and before > self._count_shared()
        if reaches_further or (got and any(node.queue.values())):
            # Others may reach further now, or steal from this one; their next beats tell them.
            self.due |= self.model.nodes.keys() - {name}
        if look.more:
            self.due.add(name)
        else:
            assert look.parked == (self.model.slots_left > 0)
        return bool(got)

    def _count_shared(self) -> int:
        return sum(map(len, self.model.shared.values()))

    def _forget(self, dropped: list[str]) -> None:
        """What was cancelled while it waited has ended once it is gone from its queue."""
        still = {message.body for message in self._all_messages()}
        self.live -= {body for body in dropped if body not in still}

    def _some_claims(self, name: str, data: st.DataObject) -> list[str]:
        node = self.model.nodes.get(name)
        if node is None or not node.claims:
            return []
        bodies = st.lists(st.sampled_from(sorted(node.claims)), min_size=1, unique=True)
        drawn: list[str] = data.draw(bodies)
        return drawn

    def _learn_largest(self) -> None:
        """Nodes know from their next beat that nobody can hold a request any more, and look."""
        self.due |= self.model.nodes.keys()

    def _beaten(self, name: str) -> None:
        """What else a beat does."""
        self.model.release_orphans()
        self.model.note_load(self.model.nodes[name])

    # What must be so

    def _all_messages(self) -> Iterable[Message]:
        for queue in self._queues().values():
            for waits in queue.values():
                yield from waits
        for node in self.model.nodes.values():
            yield from node.claims.values()
            yield from node.staged

    def _queues(self) -> dict[str, dict[int, list[Message]]]:
        own = {f"{BASE}.{name}": node.queue for name, node in self.model.nodes.items()}
        left = {f"{BASE}.{name}": queue for name, queue in self.model.orphans.items()}
        return {BASE: self.model.shared, **own, **left}

    def _end_where_nowhere(self, bodies: list[str]) -> None:
        still = {message.body for message in self._all_messages()}
        self.live -= {body for body in bodies if body not in still}

    @invariant()
    def every_queue_has_what_it_is_to_have_in_order(self) -> None:
        for name, queue in self._queues().items():
            for step in range(1, STEPS + 1):
                assert waiting(self.server, name, step) == [m.body for m in queue[step]], name

    @invariant()
    def every_live_message_is_in_exactly_one_place(self) -> None:
        places = Counter(message.body for message in self._all_messages())
        assert places == Counter(self.live)
        for name, node in self.model.nodes.items():
            inc = self.members[name].inc
            values = self.server.hvals(f"{PREFIX}claims:{inc}")
            assert sorted(map(body_of, values)) == sorted(node.claims)
            staged = self.server.lrange(staged_key(PREFIX, inc), 0, -1)
            assert [body_of(raw) for raw in staged] == [message.body for message in node.staged]
        assert len(self.server.keys(f"{PREFIX}claims:*")) == sum(
            bool(node.claims) for node in self.model.nodes.values()
        )

    @invariant()
    def dead_letters_have_their_reasons(self) -> None:
        assert Counter(letters(self.server)) == Counter(self.model.letters)

    @invariant()
    def loads_are_what_they_were_when_last_noted(self) -> None:
        rows = self.server.zrange(LOADS + "0", 0, -1, withscores=True)
        assert dict(rows) == self.model.loads
