"""Profiles all threads of a program, and writes the costliest functions of each at its end.

python -m benchmarks.cluster_profile PROGRAM ARGUMENTS runs Celery's command with it.
"""

from __future__ import annotations

import cProfile
import io
import os
import pstats
import sys
import threading
from collections.abc import Callable
from pathlib import Path

FOLDER_VARIABLE = "BENCHMARK_PROFILES"
LINES = 20


def profile_threads() -> dict[str, cProfile.Profile]:
    """Profile every thread that is started from now on; by its name."""
    profiles: dict[str, cProfile.Profile] = {}
    plain_run = threading.Thread.run

    def run(self: threading.Thread) -> None:
        profiles[self.name] = mine = cProfile.Profile()
        mine.runcall(plain_run, self)

    threading.Thread.run = run  # type: ignore[method-assign]
    return profiles


def write(profiles: dict[str, cProfile.Profile], title: str) -> None:
    """Write them to a file in the folder that the environment names."""
    text = io.StringIO()
    for name, data in profiles.items():
        text.write(f"== {title}, thread {name}\n")
        pstats.Stats(data, stream=text).strip_dirs().sort_stats("tottime").print_stats(LINES)
    (Path(os.environ[FOLDER_VARIABLE]) / f"{title}.txt").write_text(text.getvalue())


def profiled(work: Callable[[], object], title: str) -> None:
    """Run ``work`` and write where its threads spent their time."""
    profiles = profile_threads()
    profiles["main"] = own = cProfile.Profile()
    try:
        own.runcall(work)
    finally:
        write(profiles, title)


def main() -> None:
    """Run Celery's command."""
    from celery.__main__ import main as celery  # noqa: PLC0415 - threads start at import

    sys.argv[0] = "celery"
    profiled(celery, f"node-{os.getpid()}")


if __name__ == "__main__":
    main()
