"""Baselines over Redis: stock Celery, and the least that two processes can do with redis-py.

A process of its own: ``python -m benchmarks.cluster_stock raw URL`` or ``celery -A
benchmarks.cluster_stock worker``.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import redis
from celery import Celery

URL_VARIABLE = "BENCHMARK_BROKER_URL"
QUEUE, SECOND_QUEUE = "stock", "stock-second"
RAW_QUEUE, RAW_ANSWERS = "raw", "raw-answers"
#: A message is between its queue and the table of unacknowledged ones for less than this, seconds.
GAP_S = 0.002

app = Celery("stock", broker=os.environ.get(URL_VARIABLE), set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_default_queue=QUEUE,
    worker_prefetch_multiplier=64,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")  # type: ignore[untyped-decorator]
def noop(prompt_token_ids: list[int], max_tokens: int) -> None:
    """What a node with an engine that costs nothing does, less the answer."""
    del prompt_token_ids, max_tokens


@app.task(name="first")  # type: ignore[untyped-decorator]
def first(prompt_token_ids: list[int], max_tokens: int) -> None:
    """What a prefill node does, less the answer: it sends the second task."""
    arguments = {"prompt_token_ids": prompt_token_ids, "max_tokens": max_tokens}
    app.send_task("noop", kwargs=arguments, queue=SECOND_QUEUE)


def run_stock(url: str, prompt: list[int], requests: int, *, task: str = "noop") -> None:
    """Enqueue so many tasks, and wait until all, and those they send, are acknowledged."""
    arguments = {"prompt_token_ids": prompt, "max_tokens": 1}
    with app.connection_for_write(url) as connection, app.amqp.Producer(connection) as producer:
        for _ in range(requests):
            app.send_task(task, kwargs=arguments, producer=producer)
    with redis.Redis.from_url(url) as client:
        while not (_is_drained(client) and _is_drained(client)):
            time.sleep(GAP_S)


def _is_drained(client: redis.Redis) -> bool:
    pipeline = client.pipeline(transaction=False)
    pipeline.llen(QUEUE)
    pipeline.llen(SECOND_QUEUE)
    pipeline.hlen("unacked")
    return not any(pipeline.execute())


def connect(url: str) -> redis.Redis:
    """A client that waits as long as it takes."""
    return redis.Redis.from_url(url, socket_timeout=None)


def run_raw(client: redis.Redis, payload: str, requests: int) -> None:
    """Push so many messages one by one, and read as many answers."""
    for _ in range(requests):
        client.lpush(RAW_QUEUE, payload)
    for _ in range(requests):
        client.blpop([RAW_ANSWERS])


def raw_round_trip(client: redis.Redis, payload: str) -> None:
    """One message, one answer."""
    client.lpush(RAW_QUEUE, payload)
    client.blpop([RAW_ANSWERS])


def serve_raw(url: str) -> None:
    """Answer each message with itself; until killed."""
    client: Any = connect(url)
    while True:
        _, message = client.brpop([RAW_QUEUE])
        client.rpush(RAW_ANSWERS, message)


if __name__ == "__main__":
    serve_raw(sys.argv[2])
