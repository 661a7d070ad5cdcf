"""Asks one question and prints the answer as it comes. The settings choose the engine."""

from __future__ import annotations

import sys

from inferq import Client

with Client() as client:
    question = " ".join(sys.argv[1:]) or "the quick brown fox jumps over the lazy dog"
    for output in client.stream(prompt=question, max_tokens=32):
        sys.stdout.write(output.text)
        sys.stdout.flush()
    sys.stdout.write("\n")
