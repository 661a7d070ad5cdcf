"""Nodes of one phase, and what they have to do."""

from __future__ import annotations

from inferq.cluster.topic import Hop, Look, Target, Topic
from tests.cluster.support import (
    LARGEST,
    PLENTY,
    PREFIX,
    Member,
    Server,
    body_of,
    item,
)

PREFILL, DECODE = "default.prefill", "default.decode"
ALL_TOKENS = Target(("d1", "d2"), (1.0, 1.0), (0.0, 0.0))


class Phased(Member):
    """A node of one phase."""

    def __init__(self, topic: Topic, name: str, *serves: str) -> None:
        self.serves = serves
        super().__init__(topic, name)

    def join(self) -> None:
        """Register and be ready for its phases."""
        super().join()
        self.serve(*self.serves)

    def serve(self, *serves: str) -> None:
        """Change its phases."""
        self.serves = serves
        self.topic.set_state(self.name, self.inc, "ready", dict.fromkeys(serves, LARGEST))

    def look(self, **room: object) -> Look:
        """Look at the queues of its phases."""
        look = self.topic.claim(
            self.name,
            self.inc,
            PLENTY._replace(**room),  # type: ignore[arg-type]
            reserve="",
            largest=LARGEST,
            serves=self.serves,
        )
        self.claims.update({body_of(taken.raw): taken for taken in look.taken})
        return look

    def take(self, **room: object) -> list[str]:
        """Who was taken in one look."""
        return [body_of(taken.raw) for taken in self.look(**room).taken]

    def hop(
        self, name: str, *, base: str = DECODE, target: Target | None = None, **how: bool | str
    ) -> str | None:
        """Pass a claim on; where it went."""
        claim = self.claims.pop(name).claim
        hop = Hop(claim, base, message_of(name), 10, 5, target=target, **how)  # type: ignore[arg-type]
        [placed] = self.topic.hop(self.name, self.inc, [hop])
        return placed and placed.node


def message_of(name: str) -> bytes:
    """A message as another node reads it."""
    return item(name).message


def next_millisecond(server: Server) -> None:
    """Wait until the server's clock shows another time."""

    def now() -> int:
        seconds, micros = server.time()
        return int(seconds * 1000 + micros // 1000)

    before = now()
    while now() == before:
        pass


def work(server: Server, base: str) -> dict[str, int]:
    """What nodes have to do, by the fields of the table."""
    rows = server.hgetall(f"{PREFIX}work:{base}")
    return {name: int(value) for name, value in rows.items() if int(value)}
