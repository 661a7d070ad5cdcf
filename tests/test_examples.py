"""The examples run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_an_engine_of_ones_own_is_named_in_the_settings() -> None:
    environment = {
        **os.environ,
        "INFERQ_ENGINE": "echo_engine:EchoEngine",
        "PYTHONPATH": str(EXAMPLES),
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "ask.py"), "hello", "world"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "hello world \n"
