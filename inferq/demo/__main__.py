"""``python -m inferq.demo``: see ``--help``."""

from __future__ import annotations

import importlib.util
import sys

#: What a shell expects of a program that was ended by Ctrl-C.
INTERRUPTED = 130


def _start() -> int:
    if importlib.util.find_spec("rich") is None:
        sys.stderr.write("inferq.demo needs rich: pip install 'inferq[demo]'\n")
        return 1
    try:
        from inferq.demo.run import main  # noqa: PLC0415  Ctrl-C may come while this imports

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("cancelled\n")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(_start())
