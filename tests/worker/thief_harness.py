"""Several nodes in threads of the test, on one broker in memory, and tasks that wait on a stage."""

from __future__ import annotations

import itertools
from typing import Any

from celery.result import AsyncResult
from kombu import Exchange, Queue

from inferq import Settings
from inferq.app import InferqApp, create_app
from inferq.engines.base import Capacity
from inferq.messages.headers import SIZE_HEADER
from inferq.results.memory import Store
from inferq.routing.topics import prefill_queue
from inferq.transport.broker import Broker
from inferq.worker.embedded import EmbeddedWorker
from inferq.worker.thief import among_others
from tests.worker.fake_engine import FakeEngine
from tests.worker.pool_harness import Stage

HOLD = "test.hold"
BLOCK_TOKENS = 10

_numbers = itertools.count()


class StillEngine(FakeEngine):
    """The slots and blocks that the settings of the simulated engine say, always free."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._slots = settings.simulated.max_slots
        self._blocks = settings.simulated.total_blocks

    def capacity(self) -> Capacity:
        blocks, slots = self._blocks, self._slots
        return Capacity(BLOCK_TOKENS, blocks, blocks, slots, slots, 10_000, 10_000)


class EmbeddedNode:
    """One node: its worker, and the stage of the tasks that it runs."""

    def __init__(self, app: InferqApp, broker: Broker, name: str) -> None:
        self.app = app
        self.stage = Stage()
        #: How the tasks of these numbers end, once.
        self.ends: dict[int, BaseException] = {}
        self.crashes: list[BaseException] = []
        self.worker = EmbeddedWorker(app, broker, name, self.crashes.append)

        async def hold(number: int) -> int:
            self.stage.report(number)
            await self.stage.gate()
            if number in self.ends:
                raise self.ends.pop(number)
            return number

        app.task(name=HOLD, shared=False)(hold)

    def open(self) -> None:
        """Let its tasks end, those that wait and those to come."""
        self.worker._controller.pool.call_soon(self.stage.open)

    def stats(self) -> dict[str, Any]:
        """What ``inspect stats`` shows."""
        stats: dict[str, Any] = self.worker._controller.stats()
        return stats


class Nodes:
    """Nodes by name, with a producer beside them."""

    def __init__(self) -> None:
        self.name = f"thief-{next(_numbers)}"
        self.broker = Broker.named(self.name)
        self._nodes: list[EmbeddedNode] = []
        self.producer = self._app(Settings())

    def start(self, name: str, *, slots: int = 1, blocks: int = 100, **values: Any) -> EmbeddedNode:
        """Start a node whose engine has so much room."""
        defaults: dict[str, Any] = {
            "engine": f"{__name__}:StillEngine",
            "admission": {"reserved_output_blocks": 0, "pass_by_s": 1000},
            "cluster": {"steal_after_s": 1000},
            "simulated": {"max_slots": slots, "total_blocks": blocks},
        }
        app = self._app(Settings(**{**defaults, **values}))
        app.conf.worker_send_task_events = True
        among_others(app, full_name(name))
        node = EmbeddedNode(app, self.broker, full_name(name))
        self._nodes.append(node)
        node.worker.start()
        return node

    def start_busy(self, name: str, *, slots: int = 1, blocks: int = 100) -> EmbeddedNode:
        """Start a node that has taken the task 0 already."""
        node = self.start(name, slots=slots, blocks=blocks)
        self.send(name, 0)
        node.stage.wait_for(1)
        return node

    def send(self, node: str | None, number: int, *, prompt_tokens: int = 10) -> AsyncResult:
        """Put a task into the queue of a node, or into the shared one."""
        queue = queue_of(node)
        return self.producer.send_task(
            HOLD,
            (number,),
            queue=Queue(queue, Exchange(""), routing_key=queue),
            headers={SIZE_HEADER: [prompt_tokens, 10]},
        )

    def waiting(self, node: str) -> int:
        """How many wait in the queue of a node."""
        return self.broker.size(queue_of(node))

    def close(self) -> None:
        """Stop all nodes, and forget broker and results."""
        for node in self._nodes:
            node.worker.stop()
            node.app.close()
        self.producer.close()
        Broker.discard(self.name)
        Store.discard(self.name)
        assert [node.crashes for node in self._nodes if node.crashes] == []

    def _app(self, settings: Settings) -> InferqApp:
        url = f"inferq-memory://{self.name}"
        return create_app(settings, broker_url=url, result_backend=url)


def full_name(node: str) -> str:
    """The name of a node as Celery knows it."""
    return f"{node}@test"


def queue_of(node: str | None) -> str:
    """The name of a node's own queue, or of the shared one."""
    return prefill_queue("default", node and full_name(node))
