"""``python -m batch_job prompts.jsonl answers.jsonl``: see README.md.

Exit codes: 0 all lines have an answer, 1 some have an error instead, 2 it could not go on,
130 it was interrupted. After the last two start it again.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeRemainingColumn as Remaining

from inferq import AsyncClient, InferqError, Settings

from .answers import Answers, AnswersError
from .asking import Asker
from .lines import Line, read_lines

FAILED, INTERRUPTED = 2, 130
COLUMNS = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]} failed"))


class Job:
    """What the workers of one run share."""

    def __init__(self, answers: Answers, asker: Asker, bar: Progress) -> None:
        self._answers = answers
        self._asker = asker
        self._bar = bar
        self.failed = 0

    async def run(self, lines: Iterator[Line], in_flight: int, task: TaskID) -> None:
        """Answer all lines, at most ``in_flight`` at once; the first worker that fails ends all."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(in_flight):
                    group.create_task(self._work(lines, task))
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from None

    async def _work(self, lines: Iterator[Line], task: TaskID) -> None:
        for line in lines:  # the next that no other worker has taken
            record = await self._asker.ask(line)
            self._answers.add(line.key, record)
            self.failed += "error" in record
            self._bar.update(task, advance=1, failed=self.failed)


async def run(options: argparse.Namespace) -> int:
    """One run; returns how many of its lines have failed."""
    # A request to end is heard like Ctrl-C: what is on its way is cancelled.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    with Answers(options.answers, again=options.retry_errors) as answers:
        done = frozenset(answers.done)

        def todo() -> Iterator[Line]:
            return (line for line in read_lines(options.prompts) if line.key not in done)

        total = sum(1 for _ in todo())
        bar = Progress(*COLUMNS, Remaining(), console=Console(stderr=True))
        async with AsyncClient(Settings()) as client:
            name = str(options.answers.resolve())
            say = partial(bar.console.print, markup=False, highlight=False)
            job = Job(answers, Asker(client, name, say), bar)
            with bar:
                task = bar.add_task("", total=total, failed=0)
                await job.run(todo(), options.in_flight, task)
        return job.failed


def main() -> int:
    """Run as the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="batch_job", description="Answers a file of prompts.")
    parser.add_argument("prompts", type=Path, help="a JSON object a line: the fields of a request")
    parser.add_argument("answers", type=Path, help="answers are appended here, as they come")
    parser.add_argument("--in-flight", type=int, default=64, metavar="N", help="most at once (64)")
    parser.add_argument("--retry-errors", action="store_true", help="ask again what has failed")
    options = parser.parse_args()
    if not 1 <= options.in_flight <= 10_000:
        parser.error("--in-flight: is not from 1 to 10000")
    try:
        return 1 if asyncio.run(run(options)) else 0
    except KeyboardInterrupt:
        sys.stderr.write("batch_job: interrupted; start it again to go on\n")
        return INTERRUPTED
    except (InferqError, AnswersError, OSError) as exc:
        sys.stderr.write(f"batch_job: {exc}\n")
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
