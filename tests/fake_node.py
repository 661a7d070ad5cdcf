"""A node without a worker: claims from a topic and answers by its scripts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack

from inferq import Settings
from inferq.cluster.keys import quoted, stream_of
from inferq.cluster.link import Link
from inferq.cluster.topic import Group, Room, Settle, Taken, Topic
from inferq.messages import Output

PLENTY = 1_000_000
ROOM = Room(
    slots=PLENTY,
    blocks=PLENTY,
    tokens=PLENTY,
    prefills=PLENTY,
    longs=PLENTY,
    idle=True,
    chunked=False,
    block_size=64,
    reserved=0,
    total_blocks=PLENTY,
    long_from=PLENTY,
    longest=PLENTY,
)
RECORD = {
    "role": "mixed",
    "host": "here",
    "engine": "fake",
    "version": "1",
    "total_blocks": 100,
    "free_blocks": 90,
    "total_slots": 8,
    "free_slots": 7,
    "block_size": 64,
}


class Job(NamedTuple):
    """A claimed request, decoded."""

    taken: Taken
    request_id: str
    origin: str
    fields: dict[str, Any]
    message: dict[str, Any]


class FakeNode:
    """Ready to take requests from the moment it is made."""

    def __init__(
        self,
        settings: Settings,
        name: str = "n1@here",
        *,
        serves: Sequence[str] = ("prefill",),
        longest: int = PLENTY,
        **record: Any,
    ) -> None:
        self.name = name
        self.topic = Topic(settings, Link(settings))
        self.inc = self.topic.register(name, json.dumps({**RECORD, **record}))
        bases = {"prefill": self.topic.base, "decode": self.topic.decode_base}
        self._serves = [bases[phase] for phase in serves]
        self.topic.set_state(name, self.inc, "ready", dict.fromkeys(self._serves, longest))

    def take(self) -> list[Job]:
        """Claim all that waits for this node."""
        jobs: list[Job] = []
        while True:
            look = self.topic.claim(
                self.name, self.inc, ROOM, reserve="", largest=PLENTY, serves=self._serves
            )
            jobs += [job_of(taken) for taken in look.taken]
            if not look.more:
                return jobs

    def take_exactly(self, count: int) -> list[Job]:
        """Claim until there are ``count``; more or less of them is an error."""
        jobs = self.take()
        assert len(jobs) == count
        return jobs

    def send(self, job: Job, outputs: Sequence[Output]) -> int:
        """Emit outputs in one batch; the Outcome."""
        stream = stream_of(self.topic.prefix, job.origin, job.request_id)
        assert stream is not None
        blob = msgpack.packb([output.to_wire() for output in outputs])
        ended = any(output.finished for output in outputs)
        settles = [Settle(job.taken.claim, quoted(job.request_id))] if ended else []
        [outcome] = self.topic.emit(self.name, self.inc, [Group(stream, blob, settles)])
        return outcome

    def answer(self, job: Job, token_ids: Iterable[int] = (1, 2, 3)) -> None:
        """Send a whole answer, one output for each token, and its end."""
        tokens = list(token_ids)
        outputs = [
            output_of(job, index, [token], last=index == len(tokens) - 1)
            for index, token in enumerate(tokens)
        ]
        assert self.send(job, outputs) == 0

    def serve(self) -> int:
        """Take and answer what waits; returns how much it was."""
        jobs = self.take()
        for job in jobs:
            self.answer(job)
        return len(jobs)

    def close(self) -> None:
        """Drop the connection, without leaving."""
        self.topic.link.close()


def job_of(taken: Taken) -> Job:
    """Decode a claimed message as Kombu would."""
    message = json.loads(taken.raw)
    assert message["content-type"] == "application/x-msgpack"
    _, fields, _ = msgpack.unpackb(base64.b64decode(message["body"]))
    properties = message["properties"]
    return Job(taken, properties["correlation_id"], properties["reply_to"], fields, message)


def output_of(
    job: Job, index: int, token_ids: Sequence[int], *, attempt: int = 0, last: bool = False
) -> Output:
    """A piece of an answer; its text says its tokens."""
    return Output(
        job.request_id,
        attempt,
        index,
        tuple(token_ids),
        "".join(f"{token} " for token in token_ids),
        finished=last,
        finish_reason="stop" if last else None,
    )
