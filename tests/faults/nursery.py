"""Worker processes without the second that Python needs to import everything.

They are forked from a process that has imported it all, and then run what ``celery`` runs.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_PRELOAD = [
    "pytest",
    "celery.__main__",
    "celery.bin.worker",
    "celery.apps.worker",
    "celery.worker.consumer",
    "celery.backends.redis",
    "kombu.transport.redis",
    "inferq.app",
    "inferq.celery",
    "tests.faults.engine",
    "tests.cluster_harness",
]


def fork_celery(arguments: Sequence[str], env: Mapping[str, str], log: Path) -> ForkServerProcess:
    """Run ``celery`` with these arguments; its output is appended to ``log``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    process = context.Process(target=_run, args=(list(arguments), dict(env), str(log)))
    process.start()
    return process


def _run(arguments: list[str], env: dict[str, str], log: str) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    faulthandler.enable()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(Path(log).parent)
    sys.argv = ["celery", *arguments]

    from celery.__main__ import main

    sys.exit(main())
