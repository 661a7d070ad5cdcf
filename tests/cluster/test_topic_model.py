"""The scripts against the model: order, claims, loads; nothing lost, nothing twice; wake-ups."""

from __future__ import annotations

import copy

from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inferq.cluster.keys import list_of, staged_key
from inferq.cluster.topic import Adoption, Burial, Return
from tests.cluster.machine import KINDS, NAMES, PROMPTS, STEP, Bench
from tests.cluster.model import (
    ANSWER,
    LOOKAHEAD,
    Message,
)
from tests.cluster.support import (
    BASE,
    ORIGIN,
    PREFIX,
    item,
)

STOCK = "a stock producer"


class TopicMachine(Bench):
    """Does the same to the model and to the scripts, and compares all that can be seen."""

    # What nodes do

    @initialize()
    def begin(self) -> None:
        for kind in KINDS:
            self._join(*kind)

    @rule(name=NAMES)
    def join(self, name: str) -> None:
        if name not in self.model.nodes:
            self._join(*next(kind for kind in KINDS if kind[0] == name))

    @rule(name=NAMES)
    def look(self, name: str) -> None:
        if name in self.model.nodes:
            self._look(name)

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
            assert answer[:2] == (len(items), ())
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
