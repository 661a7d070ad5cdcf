"""Runs Celery with a clock that is wrong by as many seconds as the first argument says."""

from __future__ import annotations

import sys
import time

if __name__ == "__main__":
    true_time = time.time
    skew_s = float(sys.argv.pop(1))
    time.time = lambda: true_time() + skew_s

    from celery.__main__ import main

    sys.argv[0] = "celery"
    sys.exit(main())
