"""Topics of one Redis, each with users of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from inferq import Client, SchedulerUnavailable, Settings
from inferq.cluster.rights import PARTS
from tests.redis_server import RedisServer
from tests.security.acl import Users


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    running = RedisServer()
    yield running
    running.stop()


def test_topics_are_closed_to_each_other(server: RedisServer) -> None:
    """By every command that a user of another topic has."""
    with redis.Redis(port=server.port) as admin:
        mine = Users(admin, "mine", "-mine")
        admin.lpush("other.prefill", "a prompt")
        admin.set("inferq:other:req:1", "whose")
        for part in PARTS:
            if part == "stock":
                continue
            theirs = Settings(
                scheduler_name="global",
                scheduler_topic="other",
                scheduler_url=mine.url(part, server.port),
            )
            with pytest.raises(SchedulerUnavailable, match=r"~inferq:other:\*"):
                Client(theirs).__enter__()
        for part in PARTS:
            with redis.Redis.from_url(mine.url(part, server.port)) as user:
                for command in (
                    ("LLEN", "other.prefill"),
                    ("RPOP", "other.prefill"),
                    ("LPUSH", "other.prefill", "x"),
                    ("GET", "inferq:other:req:1"),
                    ("EVAL", "return redis.call('RPOP', 'other.prefill')", "0"),
                    ("PUBLISH", "/1.celery.pidbox", "x"),
                    ("KEYS", "*"),  # an operator may SCAN: names of keys, not what is in them
                    ("FLUSHALL",),
                    ("CONFIG", "SET", "save", ""),
                    ("ACL", "LIST"),
                ):
                    with pytest.raises(
                        redis.exceptions.ResponseError, match=r"no permissions|No permissions"
                    ):
                        user.execute_command(*command)
        assert admin.llen("other.prefill") == 1


def test_topics_of_one_redis_are_controlled_apart_in_databases_of_their_own(
    server: RedisServer,
) -> None:
    with redis.Redis(port=server.port) as admin:
        users = Users(admin, "mine", "-in-3", database=3)
        with redis.Redis.from_url(users.url("node", server.port)) as user:
            user.publish("/3.celery.pidbox", "x")
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.publish("/0.celery.pidbox", "x")
