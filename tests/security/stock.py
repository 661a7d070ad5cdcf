"""A producer with Celery alone: ``python -m tests.security.stock URL QUEUE``; prints the tokens."""

from __future__ import annotations

import json
import sys

from celery import Celery

TIMEOUT_S = 60.0


def main() -> int:
    """Send a task and wait for its answer."""
    url, queue = sys.argv[1:]
    app = Celery("stock", broker=url, backend=url)
    app.conf.task_default_queue = queue
    result = app.send_task("inferq.prefill", kwargs={"prompt_token_ids": [1, 2], "max_tokens": 3})
    sys.stdout.write(json.dumps(result.get(timeout=TIMEOUT_S)["token_ids"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
