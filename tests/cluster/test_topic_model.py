"""The scripts against the model: order, claims, loads; nothing lost, nothing twice; wake-ups."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable

import redis
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inferq.cluster.keys import list_of, staged_key
from inferq.cluster.link import Link
from inferq.cluster.topic import Adoption, Burial, Return, Topic
from tests.cluster.model import (
    ANSWER,
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
    ORIGIN,
    PREFIX,
    Member,
    Server,
    body_of,
    item,
    letters,
    settings_of,
    waiting,
)

#: (name, slots, blocks, longest): small ones, and one that can hold more.
KINDS = [("a", 2, 8, 9), ("b", 3, 10, 9), ("c", 4, 20, 21)]
NAMES = st.sampled_from([kind[0] for kind in KINDS])
STEP = st.sampled_from([1, 1, 1, 2, 4])
PROMPTS = st.integers(1, 24)
STOCK = "a stock producer"


class TopicMachine(RuleBasedStateMachine):
    """Does the same to the model and to the scripts, and compares all that can be seen."""

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

    # What nodes do

    @initialize()
    def begin(self) -> None:
        for kind in KINDS:
            self._join(*kind)

    def _join(self, name: str, slots: int, blocks: int, longest: int) -> None:
        self.members[name] = Member(self.topic, name, longest=longest)
        self.model.nodes[name] = Node(name, slots, blocks, longest)
        self.model.nodes[name].queue = self.model.orphans.pop(name, self.model.nodes[name].queue)
        self.due.add(name)

    @rule(name=NAMES)
    def join(self, name: str) -> None:
        if name not in self.model.nodes:
            self._join(*next(kind for kind in KINDS if kind[0] == name))

    @rule(name=NAMES)
    def look(self, name: str) -> None:
        if name in self.model.nodes:
            self._look(name)

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

    @rule(name=NAMES, data=st.data(), started=st.booleans())
    def put_back(self, name: str, data: st.DataObject, started: bool) -> None:
        bodies = self._some_claims(name, data)
        if not bodies:
            return
        node, member = self.model.nodes[name], self.members[name]
        returns = [Return(member.claims.pop(body).claim, started) for body in bodies]
        self.topic.put_back(name, member.inc, returns)
        self.model.give_back(node, bodies, started=started)
        self._end_where_nowhere(bodies)
        self.due.add(name)

    @rule(name=NAMES, data=st.data())
    def settle(self, name: str, data: st.DataObject) -> None:
        bodies = self._some_claims(name, data)
        for body in bodies:
            self.members[name].settle(body)
            del self.model.nodes[name].claims[body]
            self.live.discard(body)
            self.due.add(name)

    @rule(name=NAMES, data=st.data())
    def bury(self, name: str, data: st.DataObject) -> None:
        for body in self._some_claims(name, data)[:1]:
            member = self.members[name]
            claim = member.claims.pop(body).claim
            self.topic.bury(name, member.inc, [Burial(claim, "malformed", "")])
            del self.model.nodes[name].claims[body]
            self.model.letters.append((body, "malformed"))
            self.live.discard(body)
            self.due.add(name)

    @rule(name=NAMES, data=st.data())
    def adopt(self, name: str, data: st.DataObject) -> None:
        for body in self._some_claims(name, data):
            member, message = self.members[name], self.model.nodes[name].claims[body]
            if not message.has_record:
                adoption = Adoption(member.claims[body].claim, body, STOCK)
                assert self.topic.adopt(name, member.inc, [adoption]) == ["ok"]
                member.claims[body] = member.claims[body]._replace(request_id=body)
                message.has_record = True

    def _some_claims(self, name: str, data: st.DataObject) -> list[str]:
        node = self.model.nodes.get(name)
        if node is None or not node.claims:
            return []
        bodies = st.lists(st.sampled_from(sorted(node.claims)), min_size=1, unique=True)
        drawn: list[str] = data.draw(bodies)
        return drawn

    @rule(name=NAMES)
    def hand_over(self, name: str) -> None:
        """What BLMOVE does for a node that listens, or still did."""
        node = self.model.nodes.get(name)
        if node is not None and self.model.shared[1]:
            staged = staged_key(PREFIX, self.members[name].inc)
            self.server.lmove(BASE, staged, "RIGHT", "RIGHT")
            node.staged.append(self.model.shared[1].pop(0))
            self.due.add(name)

    @rule(name=NAMES, witness=NAMES)
    def lose(self, name: str, witness: str) -> None:
        """A node dies, and another one notices."""
        if name == witness or not {name, witness} <= self.model.nodes.keys():
            return
        node = self.model.nodes[name]
        claims = list(node.claims)
        self.members[name].lapse(self.server)
        beat = self.topic.beat(witness, self.members[witness].inc)
        self.model.end(node)
        self._beaten(witness)
        assert [inc for inc, _, _ in beat.recovered] == [self.members[name].inc]
        assert self.members[name].is_fenced()
        self._end_where_nowhere(claims)
        self._learn_largest()

    @rule(name=NAMES)
    def drain(self, name: str) -> None:
        if name in self.model.nodes:
            self.topic.set_state(name, self.members[name].inc, "draining")
            self.model.drain(self.model.nodes[name])
            self._learn_largest()

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        if name in self.model.nodes:
            claims = list(self.model.nodes[name].claims)
            self.topic.set_state(name, self.members[name].inc, "gone")
            self.model.end(self.model.nodes[name])
            self._end_where_nowhere(claims)
            self._learn_largest()

    @rule(name=NAMES)
    def beat(self, name: str) -> None:
        if name not in self.model.nodes:
            return
        beat = self.topic.beat(name, self.members[name].inc)
        self._beaten(name)
        node = self.model.nodes[name]
        shared = any(self.model.shared.values())
        assert beat.look == bool(shared or any(node.queue.values()) or self.model.loads)
        assert beat.largest == self.model.largest
        if beat.look:
            self.due.add(name)

    def _learn_largest(self) -> None:
        """Nodes know from their next beat that nobody can hold a request any more, and look."""
        self.due |= self.model.nodes.keys()

    def _beaten(self, name: str) -> None:
        """What else a beat does."""
        self.model.release_orphans()
        self.model.note_load(self.model.nodes[name])

    # What producers do

    @rule(
        steps_and_prompts=st.lists(st.tuples(STEP, PROMPTS), min_size=1, max_size=4),
        name=st.none() | NAMES,
        again=st.booleans(),
    )
    def submit(
        self, steps_and_prompts: list[tuple[int, int]], name: str | None, again: bool
    ) -> None:
        messages = [self._new(step, prompt) for step, prompt in steps_and_prompts]
        items = [
            item(message.body, step=message.step, prompt=message.prompt, answer=ANSWER)
            for message in messages
        ]
        for _ in range(2 if again else 1):
            answer = self.topic.submit(ORIGIN, f"token {self.count}", items, name or "")
            assert answer == (len(items), ())
        node = self.model.nodes.get(name or "")
        own = node is not None and node.state == "ready"
        if node is not None and sum(map(len, node.queue.values())) >= LOOKAHEAD:
            # Out of reach for thieves, whose next beats tell them of the greater load.
            self.due |= self.model.nodes.keys()
        queue = node.queue if node is not None and own else self.model.shared
        for message in messages:
            queue[message.step].append(message)
        if node is not None and own:
            self.model.note_load(node)

    def _new(self, step: int, prompt: int, *, has_record: bool = True) -> Message:
        self.count += 1
        body = f"m{self.count}"
        self.live.add(body)
        return Message(body, step, prompt, has_record)

    @rule(step=STEP, name=st.none() | NAMES)
    def push(self, step: int, name: str | None) -> None:
        """A stock producer sends; who is not handed it learns of it from its next beat."""
        # Its size is estimated from its length, and its answer from the usual one: held by all.
        message = self._new(step, 1, has_record=False)
        raw = f'{{"inferq": [0, 0, 1, {ANSWER}, 0, 0, ""], "body": "{message.body}"}}'
        self.server.lpush(list_of(f"{BASE}.{name}" if name else BASE, step), raw)
        node = self.model.nodes.get(name or "")
        if name is None:
            self.model.shared[step].append(message)
        elif node is not None:
            node.queue[step].append(message)
        else:
            self.model.orphans[name][step].append(message)
        self.due |= self.model.nodes.keys()

    @rule(data=st.data())
    @precondition(lambda self: self.live)
    def cancel(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(sorted(self.live)))
        holder = next((n for n in self.model.nodes.values() if body in n.claims), None)
        message = next(m for m in self._all_messages() if m.body == body)
        answer = self.topic.cancel(body)
        if not message.has_record:
            assert answer == "unknown"
            return
        assert answer == ("running" if holder else "queued")
        self.model.cancelled.add(body)

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
        rows = self.server.zrange(f"{PREFIX}load:0", 0, -1, withscores=True)
        assert dict(rows) == self.model.loads

    @rule()
    def come_to_rest(self) -> None:
        """Nodes that are woken look until nobody is: then nobody could take anything more."""
        for _ in range(1000):
            name = self._next_awake()
            if name is None:
                break
            self._look(name)
        else:
            raise AssertionError("nodes wake each other for ever")
        for name, node in self.model.nodes.items():
            if node.state == "ready":
                trial = copy.deepcopy(self.model)
                assert trial.claim(trial.nodes[name]) == [], name

    def _next_awake(self) -> str | None:
        """A node that has a reason to look."""
        for name in sorted(self.model.nodes):
            inc = self.members[name].inc
            if name in self.due or self.server.exists(f"{PREFIX}bell:{inc}"):
                return name
            if self.server.sismember(f"{PREFIX}listening", inc) and self.model.shared[1]:
                self.hand_over(name)
                return name
        return None


def test_the_scripts_do_what_the_model_does(port: int) -> None:
    machine = type("Machine", (TopicMachine,), {"port": port})
    run_state_machine_as_test(
        machine, settings=examples(max_examples=60, stateful_step_count=40, deadline=None)
    )
