"""What pages show, read from Redis and made ready for JSON. For one thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferq.cluster.letters import Letter, Letters
from inferq.cluster.status import read_status
from inferq.cluster.stories import Stories, Story
from inferq.cluster.topic import Topic
from inferq.cluster.view import NodeView, QueueView, View
from inferq.monitoring.flower.shared import Payload

#: Rows of a page; of what is left out it says how many there are.
MOST_NODES = 1_000
MOST_QUEUES = 200
MOST_LETTERS = 50
MOST_STORIES = 50
#: Keys of the server that one look for queues without a node goes through.
KEYS_A_LOOK = 2_000
#: Texts are cut at this length, characters; names and ids are not, for actions need them whole.
MAX_TEXT = 500

_NODE_FIELDS = (
    "name", "state", "role", "host", "engine", "version", "lease_s", "seen_s", "live", "load",
    "queued", "oldest_s", "claims", "running", "total_blocks", "free_blocks", "total_slots",
    "free_slots", "stolen", "stole", "tokens_per_s", "ttft_ms", "tpot_ms", "kept_kv", "ended",
)  # fmt: skip


class Reading:
    """Every method raises one of link.AWAY."""

    def __init__(self, topic: Topic, letters: Letters) -> None:
        self._topic = topic
        self._view = View(topic)
        self._letters = letters
        self._stories = Stories(topic)
        self._splits = topic.settings.scheduler_name == "splitwise"

    def knows(self, node: str) -> bool:
        """Whether a node of this name has joined the topic."""
        try:
            name = node.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return False
        return bool(self._topic.link.call("HEXISTS", f"{self._topic.prefix}nodes", name))

    def cluster(self) -> Payload:
        """The rows of the Cluster page."""
        nodes = sorted(self._view.nodes(), key=lambda node: (not node.live, node.name))
        queues = sorted(
            filter(self._is_used, self._view.queues(most_keys=KEYS_A_LOOK)), key=_in_order
        )
        letters = self._letters.list(MOST_LETTERS)
        return {
            "totals": {**_totals(nodes, queues), "letters": self._letters.count()},
            "nodes": [_node_row(node) for node in nodes[:MOST_NODES]],
            "nodes_left_out": max(0, len(nodes) - MOST_NODES),
            "queues": [_queue_row(queue) for queue in queues[:MOST_QUEUES]],
            "queues_left_out": max(0, len(queues) - MOST_QUEUES),
            "letters": [_plain(letter._asdict()) for letter in letters],
        }

    def request(self, request_id: str) -> Payload:
        """A request: its status while it lives, its story once it has ended."""
        status = read_status(self._topic, request_id)
        is_live = status.state in ("queued", "running")
        story = None if is_live else self._stories.find(request_id)
        return {
            "id": request_id,
            "status": _plain(status._asdict()),
            "story": _story_row(story) if story is not None else None,
        }

    def latest(self) -> Payload:
        """The requests that ended last, the newest first."""
        return {"stories": [_story_row(story) for story in self._stories.latest(MOST_STORIES)]}

    def letter(self, letter_id: str) -> Payload:
        """A dead letter and what its message is, without the words of the prompt."""
        letter: Letter | None = self._letters.show(letter_id)
        return {"letter": _plain(letter._asdict()) if letter is not None else None}

    def _is_used(self, queue: QueueView) -> bool:
        """Where every node is mixed, nothing goes into decode queues."""
        return self._splits or queue.phase == "prefill" or queue.length > 0


def _node_row(node: NodeView) -> Mapping[str, Any]:
    return _plain({name: getattr(node, name) for name in _NODE_FIELDS})


def _queue_row(queue: QueueView) -> Mapping[str, Any]:
    return _plain({**queue._asdict(), "length": queue.length})


def _story_row(story: Story) -> Mapping[str, Any]:
    return _plain(story._asdict())


def _in_order(queue: QueueView) -> tuple[Any, ...]:
    """Shared queues first, then those that nobody serves, then the longest."""
    return bool(queue.node), not queue.orphaned, -queue.length, queue.phase == "decode", queue.name


def _totals(nodes: list[NodeView], queues: list[QueueView]) -> Mapping[str, Any]:
    live = [node for node in nodes if node.live]
    return {
        "nodes": len(nodes),
        "live": len(live),
        "running": sum(node.running for node in live),
        "waiting": sum(queue.length for queue in queues),
        "tokens_per_s": round(sum(node.tokens_per_s for node in live), 1),
        "total_blocks": sum(node.total_blocks for node in live),
        "free_blocks": sum(node.free_blocks for node in live),
    }


def _plain(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: _value(name, value) for name, value in fields.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, str) and name not in ("id", "name", "node", "request_id"):
        return value[:MAX_TEXT]
    if isinstance(value, tuple):
        return [_value("", part) for part in value]
    return value
