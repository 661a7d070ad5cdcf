"""A discrete-event simulation of placement: engines by cost model, producers with old loads.

It runs the very policies, and the very rule of the final choice. Producers share no memory: each
has its own placer, and reads all loads once in a period, at a moment of its own.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import NamedTuple

from inferq.demo.workload import Arrival
from inferq.engines.costs import PRESETS, CostModel
from inferq.routing.placement import Ask, NodeInfo, Phase, Placer, Snapshot, choose, create_placer
from inferq.settings import PlacementSettings

FAST, SLOW = PRESETS["llama2-70b-h100-tp8"], PRESETS["llama2-70b-a100-tp8"]
TOKENS_PER_BATCH = 2048
KV_TOKENS = 200_000
LONGEST = 10**9
PRODUCERS = 8
SAMPLE_S = 0.5
#: What a prefill rate is measured with, tokens.
USUAL_PROMPT = 1500


class Setup(NamedTuple):
    """One run. ``scripted``: the final choice sees the loads of its moment.

    ``fast``, ``slow``: nodes of either hardware. ``period_s``: between two looks at all loads.
    """

    phase: Phase
    policy: str
    fast: int
    slow: int = 0
    period_s: float = 0.2
    scripted: bool = True
    seed: int = 1


class Job(NamedTuple):
    """A request on its way; ``answer`` is how long it will really be, of at most ``max_tokens``."""

    at_s: float
    ask: Ask
    answer: int


class Node(ABC):
    """A node under simulation."""

    def __init__(self, name: str, cost: CostModel) -> None:
        self.name = name
        self.cost = cost
        self.waiting: deque[Job] = deque()
        self.busy = False
        #: Since when it waits for work from the shared queue.
        self.last_s = 0.0

    @abstractmethod
    def info(self) -> NodeInfo:
        """As the load table shows it."""

    @abstractmethod
    def start(self, queue: deque[Job]) -> float | None:
        """Take from the queue what there is room for, and compute a step; its length, seconds."""

    @abstractmethod
    def end(self, now_s: float) -> list[float]:
        """The step is over; what it says of requests that have ended with it."""

    @abstractmethod
    def has_room(self, job: Job) -> bool:
        """Whether it would start the request now."""


class PrefillNode(Node):
    """Computes prompts, first come first served; says times to first token, seconds."""

    def __init__(self, name: str, cost: CostModel) -> None:
        super().__init__(name, cost)
        self._running: list[Job] = []

    def info(self) -> NodeInfo:
        tokens = sum(job.ask.prompt_tokens for job in (*self.waiting, *self._running))
        rate = USUAL_PROMPT / self.cost.prefill_ms(USUAL_PROMPT) * 1000
        return NodeInfo(
            self.name, "prefill", True, float("inf"), longest=LONGEST, prefill_tokens=tokens,
            prefill_tokens_per_s=rate,
        )  # fmt: skip

    def start(self, queue: deque[Job]) -> float | None:
        tokens = 0
        while queue and (not tokens or tokens + queue[0].ask.prompt_tokens <= TOKENS_PER_BATCH):
            job = queue.popleft()
            self._running.append(job)
            tokens += job.ask.prompt_tokens
        return self.cost.prefill_ms(tokens) / 1000 if tokens else None

    def end(self, now_s: float) -> list[float]:
        ended, self._running = self._running, []
        self.last_s = now_s
        return [now_s - job.at_s for job in ended]

    def has_room(self, job: Job) -> bool:
        del job
        return not self.busy


class DecodeNode(Node):
    """Batches continuously within its KV cache; says seconds a token, waiting included."""

    def __init__(self, name: str, cost: CostModel) -> None:
        super().__init__(name, cost)
        self._ends: list[tuple[int, float, Job]] = []
        self._step = 0
        self._pledged = 0
        self._kv = 0

    def info(self) -> NodeInfo:
        queued = sum(job.ask.total_tokens for job in self.waiting)
        return NodeInfo(
            self.name, "decode", True, float("inf"), longest=LONGEST,
            decode_requests=len(self._ends) + len(self.waiting),
            decode_tokens=self._pledged + queued,
        )  # fmt: skip

    def start(self, queue: deque[Job]) -> float | None:
        while queue and self._fits(queue[0]):
            job = queue.popleft()
            self._pledged += job.ask.total_tokens
            self._kv += job.ask.prompt_tokens
            heapq.heappush(self._ends, (self._step + job.answer, job.at_s, job))
        rows = len(self._ends)
        return self.cost.decode_ms(rows, self._kv) / 1000 if rows else None

    def end(self, now_s: float) -> list[float]:
        self._step += 1
        self._kv += len(self._ends)
        said = []
        while self._ends and self._ends[0][0] <= self._step:
            job = heapq.heappop(self._ends)[2]
            self._pledged -= job.ask.total_tokens
            self._kv -= job.ask.prompt_tokens + job.answer
            said.append((now_s - job.at_s) / job.answer)
        return said

    def has_room(self, job: Job) -> bool:
        return self._fits(job, sum(queued.ask.total_tokens for queued in self.waiting))

    def _fits(self, job: Job, queued: int = 0) -> bool:
        pledged = self._pledged + queued
        return not pledged or pledged + job.ask.total_tokens <= KV_TOKENS


class Outcome(NamedTuple):
    """``figures``: of all requests. ``imbalance``: greatest load over mean load, mean over time."""

    figures: list[float]
    imbalance: float


class Simulation:
    """One run."""

    def __init__(self, setup: Setup, jobs: Sequence[Job]) -> None:
        self._setup = setup
        self._random = Random(setup.seed)
        kind: type[Node] = PrefillNode if setup.phase == "prefill" else DecodeNode
        costs = [FAST] * setup.fast + [SLOW] * setup.slow
        self._nodes = {f"n{i:03}": kind(f"n{i:03}", cost) for i, cost in enumerate(costs)}
        self._shared: deque[Job] = deque()
        settings = PlacementSettings(
            prefill_policy=setup.policy, decode_policy=setup.policy, refresh_s=setup.period_s
        )
        self._placers = [
            create_placer(settings, setup.phase, Random(f"{setup.seed} {number}"))
            for number in range(PRODUCERS)
        ]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self._left = len(jobs)
        self._last_s = jobs[-1].at_s
        self._figures: list[float] = []
        self._imbalances: list[float] = []
        for job in jobs:
            self._at(job.at_s, partial(self._arrive, job))
        for number, placer in enumerate(self._placers):
            placer.refresh(self._snapshot())
            first_s = setup.period_s * number / PRODUCERS
            self._at(first_s, partial(self._refresh, placer))
        self._at(0.0, self._sample)

    def run(self) -> Outcome:
        """Until all requests have ended."""
        while self._left:
            now_s, _, act = heapq.heappop(self._events)
            act(now_s)
        mean = sum(self._imbalances) / max(1, len(self._imbalances))
        return Outcome(self._figures, mean)

    def _at(self, at_s: float, act: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_s, self._number, act))

    def _snapshot(self) -> Snapshot:
        return Snapshot(tuple(node.info() for node in self._nodes.values()), 0.0)

    def _refresh(self, placer: Placer, now_s: float) -> None:
        placer.refresh(self._snapshot())
        self._at(now_s + self._setup.period_s, partial(self._refresh, placer))

    def _arrive(self, job: Job, now_s: float) -> None:
        placer = self._random.choice(self._placers)
        shortlist = placer.place(job.ask)
        if not shortlist.candidates:
            self._share(job, now_s)
            return
        infos = {name: self._nodes[name].info() for name in shortlist.names}
        loads = {name: getattr(info, shortlist.load) for name, info in infos.items()}
        # Without the script the producer itself has chosen, by what it knew.
        name = placer.expected
        if self._setup.scripted:
            name = choose(shortlist, loads, loads.__contains__) or name
        node = self._nodes[name]
        node.waiting.append(job)
        if self._setup.scripted:
            placer.placed(name, getattr(node.info(), shortlist.load))
        self._begin(node, now_s)

    def _share(self, job: Job, now_s: float) -> None:
        free = [node for node in self._nodes.values() if node.has_room(job)]
        if self._shared or not free:
            self._shared.append(job)
            return
        # The one that has waited longest, as nodes that block on a list in Redis are served.
        node = min(free, key=lambda node: node.last_s)
        node.last_s = now_s
        node.waiting.append(job)
        self._begin(node, now_s)

    def _begin(self, node: Node, now_s: float) -> None:
        if node.busy:
            return
        step_s = node.start(node.waiting or self._shared)
        if step_s is not None:
            node.busy = True
            self._at(now_s + step_s, partial(self._end, node))

    def _end(self, node: Node, now_s: float) -> None:
        node.busy = False
        figures = node.end(now_s)
        self._figures += figures
        self._left -= len(figures)
        self._begin(node, now_s)

    def _sample(self, now_s: float) -> None:
        load = "prefill_tokens" if self._setup.phase == "prefill" else "decode_tokens"
        loads = [getattr(info, load) for info in self._snapshot().nodes]
        if any(loads):
            self._imbalances.append(max(loads) * len(loads) / sum(loads))
        if now_s + SAMPLE_S <= self._last_s:
            self._at(now_s + SAMPLE_S, self._sample)


def jobs_of(arrivals: Sequence[Arrival], speedup: float, seed: int) -> list[Job]:
    """The requests of a trace that runs faster; callers allow up to four times the answer."""
    random = Random(seed)
    return [
        Job(a.at_s / speedup, Ask(a.prompt_tokens, round(a.max_tokens * random.uniform(1, 4))),
            a.max_tokens)
        for a in arrivals
    ]  # fmt: skip
