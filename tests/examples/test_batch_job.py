"""The batch job, interrupted in every way."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from examples.batch_job.asking import request_id_of
from examples.batch_job.lines import Line
from tests.cluster_harness import Cluster, frozen
from tests.examples.conftest import environment, first_starts, start_nodes
from tests.faults.processes import Command
from tests.support import wait_until

INTERRUPTED = 130


class Job:
    """A file of prompts, a file of answers, and the processes that work on them."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.prompts = folder / "prompts.jsonl"
        self.answers = folder / "answers.jsonl"
        self._folder = folder
        self._runs: list[Command] = []

    def write(self, lines: Sequence[Any]) -> None:
        """Make the file of prompts."""
        self.prompts.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def start(self, *options: str, **more: str) -> Command:
        """Start a run."""
        name = f"run{len(self._runs)}"
        arguments = ["-m", "batch_job", str(self.prompts), str(self.answers), *options]
        run = Command(name, arguments, environment(self.cluster, **more), self._folder / name)
        self._runs.append(run)
        return run

    def run(self, *options: str) -> int:
        """A whole run; its exit code."""
        return self.start(*options).wait()

    def answered(self) -> list[dict[str, Any]]:
        """What stands in the file of answers. A torn line is an error."""
        if not self.answers.exists():
            return []
        return [json.loads(line) for line in self.answers.read_bytes().splitlines()]

    def requests(self) -> set[str]:
        """The ids of the requests that have an answer."""
        job = str(self.answers.resolve())
        return {request_id_of(job, Line(0, record["key"], None, {})) for record in self.answered()}

    def close(self) -> None:
        """End all runs."""
        for run in self._runs:
            run.kill()


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> Iterator[Job]:
    job = Job(cluster, tmp_path)
    yield job
    job.close()


def numbered(count: int, *, tokens: int = 2, pace_ms: int = 0) -> list[dict[str, Any]]:
    """Lines for the engine of the tests, which reads its pace from the prompt."""
    return [{"id": n, "prompt_token_ids": [pace_ms, 0], "max_tokens": tokens} for n in range(count)]


def check_all(job: Job, count: int) -> None:
    """Each line has one answer, and it is the whole one."""
    answered = job.answered()
    assert sorted(record["id"] for record in answered) == list(range(count))
    assert all(record["finish_reason"] == "length" for record in answered)


def test_every_line_is_answered_and_what_is_wrong_is_kept(job: Job) -> None:
    good = [
        {"id": "a", "prompt": "one", "max_tokens": 3},
        {"prompt": "two", "max_tokens": 1},
        {"prompt": "two", "max_tokens": 1},
    ]
    bad = [
        {"id": "b", "prompt": "x", "max_tokens": 0},
        {"prompt": "x", "colour": 1},
        {"prompt": "x", "request_id": "mine"},
        {"id": [], "prompt": "x"},
        ["prompt"],
        {"id": "c", "prompt": "x", "max_tokens": 100_000},
    ]
    job.write([*good, *bad])
    with job.prompts.open("ab") as file:
        file.write(b'\n  \n{"prompt": \n\xff\xfe\n' + b"[" * 100_000 + b"\n")
    run = job.start()
    assert run.wait() == 1
    assert "12/12" in run.log()
    assert "9 failed" in run.log()
    answered = {record["line"]: record for record in job.answered()}
    assert sorted(answered) == [*range(1, 10), 12, 13, 14]
    assert [len(answered[n]["token_ids"]) for n in (1, 2, 3)] == [3, 1, 1]
    assert (answered[1]["id"], answered[2]["id"]) == ("a", None)
    assert (answered[4]["id"], answered[4]["error"]["field"]) == ("b", "max_tokens")
    assert answered[5]["error"]["field"] == "colour"
    assert answered[9]["error"]["code"] == "too_large"
    for number, words in {
        6: "request_id",
        7: "id: is no",
        8: "no JSON object",
        12: "",
        13: "",
    }.items():
        assert answered[number]["error"]["code"] == "invalid_line"
        assert words in answered[number]["error"]["message"]


def test_a_job_that_is_done_does_nothing_when_started_again(job: Job, cluster: Cluster) -> None:
    job.write(numbered(5))
    assert job.run() == 0
    before = (job.answers.read_bytes(), first_starts(cluster))
    assert job.run() == 0
    assert (job.answers.read_bytes(), first_starts(cluster)) == before


def test_only_what_is_new_is_asked_when_lines_are_added(job: Job) -> None:
    job.write([{"prompt": "two"}, {"prompt": "three"}])
    assert job.run() == 0
    before = job.answered()
    job.write([{"prompt": "one"}, {"prompt": "two"}, {"prompt": "three"}, {"prompt": "two"}])
    assert job.run() == 0
    assert job.answered()[:2] == before
    assert sorted(record["line"] for record in job.answered()[2:]) == [1, 4]


def test_killed_jobs_lose_nothing_and_do_nothing_twice(job: Job, cluster: Cluster) -> None:
    # Some answers take so long that the second run meets the requests of the first.
    job.write([*numbered(40), *numbered(50, tokens=100, pace_ms=100)[40:]])
    run = job.start("--in-flight", "8")
    wait_until(lambda: len(job.answered()) >= 30 or not run.is_alive)
    run.kill()
    finished, before = job.requests(), first_starts(cluster)
    assert len(finished) < 50
    again = job.start("--in-flight", "8")
    wait_until(lambda: len(job.answered()) >= 40 or not again.is_alive)
    wait_until(lambda: len(first_starts(cluster).keys() - finished) >= 8 or not again.is_alive)
    again.kill()
    assert job.run() == 0
    check_all(job, 50)
    after = first_starts(cluster)
    assert all(after[name] == before[name] for name in finished)
    assert "abort" in {entry.what for entry in cluster.journal()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_takes_its_requests_back_and_goes_on(
    job: Job, cluster: Cluster, number: signal.Signals
) -> None:
    job.write([*numbered(10), *numbered(14, tokens=50, pace_ms=100)[10:]])
    run = job.start("--in-flight", "4")
    before = first_starts(cluster)
    wait_until(lambda: len(job.answered()) == 10 or not run.is_alive)
    wait_until(lambda: len(first_starts(cluster)) - len(before) >= 14 or not run.is_alive)
    run.send(number)
    assert run.wait() == INTERRUPTED, run.log()
    assert "start it again to go on" in run.log()
    nodes = [node for node in cluster.processes if node.name.endswith("@test")]
    cluster.check_clean(*nodes)
    assert job.run() == 0
    check_all(job, 14)


def test_a_torn_line_is_dropped_and_answered_again(job: Job) -> None:
    job.write(numbered(3))
    assert job.run() == 0
    whole = job.answers.read_bytes()
    job.answers.write_bytes(whole[:-20])
    assert job.run() == 0
    check_all(job, 3)


@pytest.mark.parametrize("content", ["my diary", "my diary\n", '{"key": torn\n{"key": "a"}\n'])
def test_a_file_that_is_no_file_of_answers_is_left_alone(job: Job, content: str) -> None:
    job.write(numbered(1))
    job.answers.write_text(content)
    run = job.start()
    assert run.wait() == 2
    assert str(job.answers) in run.log()
    assert job.answers.read_text() == content


def test_two_jobs_do_not_write_one_file(job: Job, cluster: Cluster) -> None:
    job.write(numbered(1, tokens=100, pace_ms=100))
    before = len(first_starts(cluster))
    first = job.start()
    wait_until(lambda: len(first_starts(cluster)) > before or not first.is_alive)
    second = job.start()
    assert second.wait() == 2
    assert "another job is writing it" in second.log()
    first.kill()


def test_what_has_failed_is_asked_again_on_demand(job: Job) -> None:
    job.write([{"id": 0, "prompt": "x", "max_tokens": 0}])
    assert job.run() == 1
    job.write([{"id": 0, "prompt": "x", "max_tokens": 1}])
    assert job.run() == 0
    assert len(job.answered()) == 1
    assert job.run("--retry-errors") == 0
    assert ["error" in record for record in job.answered()] == [True, False]


def test_files_and_options_that_cannot_be_used(job: Job) -> None:
    for arguments, words in (((), "No such file"), (("--in-flight", "0"), "from 1 to 10000")):
        run = job.start(*arguments)
        assert run.wait() == 2
        assert words in run.log()


def test_no_more_than_allowed_are_in_flight(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        start_nodes(cluster)
        job = Job(cluster, tmp_path)
        job.write(numbered(30, tokens=5, pace_ms=20))
        assert job.run("--in-flight", "6") == 0
        running = most = 0
        for entry in cluster.journal():
            running += {"start": 1, "end": -1}[entry.what]
            most = max(most, running)
        assert 1 < most <= 6


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start("gpu0", slots=1)
        job = Job(cluster, tmp_path)
        job.write(numbered(12, tokens=2, pace_ms=10))
        run = job.start("--in-flight", "6", INFERQ_CLUSTER__MAX_WAITING="1")
        assert run.wait() == 0, run.log()
        assert "cluster.max_waiting is 1" in run.log()
        check_all(job, 12)


def test_redis_may_be_away(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        start_nodes(cluster)
        job = Job(cluster, tmp_path)
        job.write(numbered(300, tokens=2, pace_ms=100))
        run = job.start("--in-flight", "300", INFERQ_CLUSTER__REDIS_TIMEOUT_S="0.5")
        wait_until(lambda: bool(cluster.journal()) or not run.is_alive)
        with frozen(cluster.server):
            wait_until(lambda: "trying again" in run.log() or not run.is_alive)
        assert run.wait() == 0, run.log() + cluster.report()
        assert "Redis does not answer" in run.log()
        check_all(job, 300)
        assert set(cluster.starts().values()) == {1}
