"""A producer that has Celery and nothing of inferq: a task by name, JSON arguments, a result.

    pip install "celery[redis]"
    python examples/cluster/stock_producer.py redis://127.0.0.1:6379/0

Its nodes may be of the global or the splitwise scheduler.
"""

import sys

from celery import Celery

url = sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379/0"
queue = sys.argv[2] if len(sys.argv) > 2 else "default.prefill"  # {topic}.prefill
app = Celery(broker=url, backend=url)

# The keyword arguments are the fields of a request; the task's id is its id.
result = app.send_task(
    "inferq.prefill",
    kwargs={"prompt": "The capital of France is", "max_tokens": 16, "temperature": 0.0},
    queue=queue,
)
answer = result.get(timeout=120)
print(answer["text"] or answer["token_ids"])
print(answer["finish_reason"], answer["timings"])
