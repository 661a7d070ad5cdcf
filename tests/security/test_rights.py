"""Users of Redis' access lists: what they are allowed is enough, and not too much."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from click.testing import CliRunner

from inferq import Client, SchedulerUnavailable, Settings
from inferq.cluster.letters import Letters
from inferq.cluster.link import Link
from inferq.cluster.rights import Part, rights_of
from inferq.cluster.topic import Topic
from inferq.cluster.view import View
from inferq.commands.main import cli
from tests.cluster_harness import SHORT_LEASE_S, TOPIC, Cluster
from tests.faults.answers import check_answers, submit
from tests.faults.processes import ROOT
from tests.redis_server import RedisServer
from tests.security.acl import Users
from tests.support import LONG_S

MakeCluster = Callable[..., Cluster]


def run_stock(url: str) -> subprocess.CompletedProcess[str]:
    """A producer with Celery alone, in a process of its own."""
    command = [sys.executable, "-m", "tests.security.stock", url, f"{TOPIC}.prefill"]
    env = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, check=False, env=env, capture_output=True, text=True, timeout=2 * LONG_S
    )


def operate(url: str, *nodes: str) -> None:
    """Celery's control commands, as Flower sends them."""
    with Celery("operator", broker=url, set_as_current=False) as app:
        app.conf.update(task_default_queue=f"{TOPIC}.prefill")
        pong = app.control.ping(list(nodes), timeout=LONG_S, limit=len(nodes))
        assert len(pong) == len(nodes)


@pytest.mark.slow
def test_nodes_and_producers_need_no_other_rights(make_cluster: MakeCluster) -> None:
    """Stealing, recovery, cancelling, stock producers, control."""
    cluster = make_cluster(lease_s=SHORT_LEASE_S, scheduler_min_load_score=1)
    users = Users(cluster.redis, TOPIC)
    port = cluster.server.port
    a, b = cluster.start("a", "b", url=users.url("node", port), slots=4, options=["-E"])
    with cluster.client(url=users.url("producer", port), node=a.name) as client:
        handles = submit(client, "r", 30, pace_ms=25)
        cluster.wait(lambda: {e.pid for e in cluster.journal("start")} >= {a.pid, b.pid})
        handles[-1].cancel()
        a.kill()
        check_answers(handles[:-1])
        assert client.status("r-0").state == "ended"
        assert client.counts().held >= 0
    operate(users.url("operator", port), b.name)
    assert run_stock(users.url("stock", port)).stdout == "[0, 1, 2]"
    b.term()
    assert b.wait() == 0, b.tail()
    assert users.refusals() == []


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sequential", "concurrent"])
def test_prefill_and_decode_nodes_need_no_other_rights(
    make_cluster: MakeCluster, family: str
) -> None:
    cluster = make_cluster(scheduler_name="splitwise", family=family)
    users = Users(cluster.redis, TOPIC)
    port = cluster.server.port
    url = users.url("node", port)
    nodes = [cluster.node("p", role="prefill", url=url), cluster.node("d", role="decode", url=url)]
    cluster.ready(*nodes)
    policy = {"prefill_policy": "least_time"}
    with cluster.client(url=users.url("producer", port), placement=policy) as client:
        check_answers(submit(client, "r", 10))
        running = submit(client, "s", 10, tokens=500)
        cluster.wait(lambda: any(e.request_id.startswith("s-") for e in cluster.journal()))
        for handle in running:
            client.cancel(handle.request_id)
        assert client.counts().held >= 0
    for node in nodes:
        node.term()
        assert node.wait() == 0, node.tail()
    assert users.refusals() == []


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    running = RedisServer()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def users(server: RedisServer) -> Users:
    return Users(redis.Redis(port=server.port), TOPIC)


def refusal(settings: Settings) -> str:
    with pytest.raises(SchedulerUnavailable) as caught:
        Client(settings).__enter__()
    return str(caught.value)


def settings_of(users: Users, part: Part, server: RedisServer, **values: Any) -> Settings:
    return Settings(
        scheduler_name="global",
        scheduler_topic=TOPIC,
        scheduler_url=users.url(part, server.port),
        **values,
    )


#: A client works without them.
NICE_TO_HAVE = {"+client|setinfo"}


def rules(part: Part) -> list[str]:
    return [rule for rule in rights_of(part, TOPIC).rules() if rule not in NICE_TO_HAVE]


@pytest.mark.parametrize("rule", [r for r in rules("producer") if not r.startswith("+eval")])
def test_a_producer_that_lacks_one_right_does_not_start(
    users: Users, server: RedisServer, rule: str
) -> None:
    users.allow("producer", without=[rule])
    try:
        said = refusal(settings_of(users, "producer", server))
    finally:
        users.allow("producer")
    assert "a right of its user is missing: " in said
    assert rule in said
    assert len(said) < 200, "says more than that"


@pytest.mark.parametrize("rule", [r for r in rules("node") if not r.startswith("+eval")])
def test_a_node_that_lacks_one_right_does_not_join(
    users: Users, server: RedisServer, rule: str
) -> None:
    settings = settings_of(users, "node", server)
    users.allow("node", without=[rule])
    topic = Topic(settings, Link(settings))
    try:
        with pytest.raises(redis.exceptions.NoPermissionError) as caught:
            topic.require_rights("node")
    finally:
        topic.link.close()
        users.allow("node")
    assert rule in str(caught.value)
    assert len(str(caught.value)) < 200, "says more than that"


@pytest.mark.parametrize("rule", ["+eval", "+evalsha"])
def test_without_scripts_there_is_nothing(users: Users, server: RedisServer, rule: str) -> None:
    with redis.Redis(port=server.port) as admin:
        admin.script_flush()
    users.allow("producer", without=[rule])
    try:
        said = refusal(settings_of(users, "producer", server))
    finally:
        users.allow("producer")
    assert "a right of its user is missing" in said
    assert f"'{rule[1:]}'" in said


def test_a_worker_that_lacks_a_right_ends_and_says_which(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    users = Users(cluster.redis, TOPIC)
    users.allow("node", without=["+hdel", "~celery-task-meta-*"])
    node = cluster.node("a", url=users.url("node", cluster.server.port))
    assert node.wait() != 0
    assert "a right of its user is missing: +hdel, ~celery-task-meta-* (of a node;" in node.log()
    assert cluster.redis.hlen(f"inferq:{TOPIC}:nodes") == 0


#: Of what a stock producer asks for beyond these, it does not need all each time.
STOCK = {"+lpush", "+sadd", "+subscribe", "~faults.prefill*", "%R~celery-task-meta-*"}
STOCK |= {"+ping", "~_kombu.binding*.faults.prefill", "&celery-task-meta-*"}


@pytest.fixture(scope="module")
def stock_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("stock")) as cluster:
        cluster.start("a")
        yield cluster


@pytest.mark.parametrize("rule", sorted(STOCK))
def test_a_stock_producer_that_lacks_one_right_is_told(stock_cluster: Cluster, rule: str) -> None:
    users = Users(stock_cluster.redis, TOPIC)
    users.allow("stock", without=[rule])
    done = run_stock(users.url("stock", stock_cluster.server.port))
    assert done.returncode != 0
    assert "permission" in done.stderr.splitlines()[-1]


def test_a_monitor_reads_and_changes_nothing(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as admin:
        users = Users(admin, "watched")
        settings = Settings(
            scheduler_name="global",
            scheduler_topic="watched",
            scheduler_url=users.url("monitor", server.port),
        )
        topic = Topic(settings, Link(settings))
        assert View(topic).nodes() == []
        assert View(topic).queue_lengths()["watched.prefill"] == 0
        assert Letters(topic).count() == 0
        with pytest.raises(redis.exceptions.ResponseError, match="no permissions"):
            topic.set_shards(2)
        topic.link.close()
        with redis.Redis.from_url(users.url("monitor", server.port)) as user:
            for command in (("LPUSH", "watched.prefill", "x"), ("DEL", "inferq:watched:dead")):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    user.execute_command(*command)


def run_commands(url: str, *lines: str) -> None:
    """``inferq ...``, each of them with success, as far as nothing is wrong with Redis."""
    env = {
        "INFERQ_SCHEDULER_NAME": "global",
        "INFERQ_SCHEDULER_TOPIC": TOPIC,
        "INFERQ_SCHEDULER_URL": url,
    }
    for line in lines:
        done = CliRunner().invoke(cli, line.split(), env=env)
        allowed = (0, 1) if line.startswith("doctor") else (0,)
        assert done.exit_code in allowed, f"{line}: {done.output} {done.exception!r}"


@pytest.mark.slow
def test_operators_and_monitors_have_the_rights_for_their_commands(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    users = Users(cluster.redis, TOPIC)
    port = cluster.server.port
    [a] = cluster.start("a", url=users.url("node", port))
    reading = ["nodes", "queues", "top --count 1 --json", "dead list"]
    run_commands(
        users.url("operator", port),
        "doctor",
        "submit --max-tokens 3 --request-id r-1 hello",
        *reading,
        "status r-1",
        f"drain {a.name}",
        f"resume {a.name}",
        "shards 2",
        "reset --yes",
    )
    cluster.redis.lpush(f"{TOPIC}.prefill", "no message")
    cluster.wait(lambda: len(cluster.dead()) == 1)
    letters: Any = cluster.redis.xrange(f"inferq:{TOPIC}:dead")
    letter = letters[0][0].decode()
    run_commands(users.url("monitor", port), *reading, "status r-1", f"dead show {letter}")
    run_commands(users.url("operator", port), f"dead drop {letter}")
    run_commands(users.url("producer", port), "submit --max-tokens 3 hello", "nodes")
    # Commands do without: it would show the names of other topics' keys.
    refused = {(entry["username"], entry["object"]) for entry in users.refusals()}
    assert refused <= {("monitor", "scan"), ("producer", "info")}
