"""The pages and what their scripts are told, over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from inferq import Client, Settings
from inferq.messages import Crossing, Timings
from tests.fake_node import FakeNode, output_of
from tests.monitoring.flower.dashboard import VIEWER, Dashboard
from tests.monitoring.flower.support import HOSTILE, bury_all, crowd, finish, lose, say
from tests.redis_server import RedisServer


def queued_of(told: Any) -> list[int]:
    return [row["queued"] for row in told["nodes"]]


@pytest.mark.parametrize("path", ["/", "/workers", "/tasks", "/broker", "/cluster", "/request"])
def test_every_page_leads_to_ours(dashboard: Dashboard, path: str) -> None:
    with dashboard.user() as user:
        page = user.get(path)
    assert page.status_code == 200
    assert 'href="/cluster"' in page.text
    assert 'href="/request"' in page.text


def test_an_unknown_page_is_still_not_found(dashboard: Dashboard) -> None:
    with dashboard.user() as user:
        assert user.get("/clusters").status_code == 404


def test_flower_shows_the_lengths_of_queues(dashboard: Dashboard, producer: Client) -> None:
    producer.submit_many({"prompt": "p", "priority": n} for n in (0, 0, 9))
    with dashboard.user() as user:
        page = user.get("/broker")
    cells = page.text.split('id="default.prefill"')[1]
    assert ">3</td>" in cells.replace("\n", "")[:200]
    assert "redis://" in page.text


def test_a_node_has_a_row_with_what_it_says_and_what_it_holds(
    dashboard: Dashboard, node: FakeNode, producer: Client, cluster: Settings
) -> None:
    producer.submit_many({"prompt": "p"} for _ in range(3))
    node.take_exactly(3)
    say(node, running=2, tokens_per_s=12.3456, ttft_ms=[10.0, 20.0], free_blocks=25)
    with Client(cluster, node=node.name) as beside:
        beside.submit_many([{"prompt": "p"}])
        said = dashboard.wait_for(lambda told: queued_of(told) == [1])
    [row] = said["nodes"]
    assert (row["name"], row["state"], row["role"], row["live"]) == (
        node.name,
        "ready",
        "mixed",
        True,
    )
    assert (row["load"], row["claims"], row["queued"], row["running"]) == (4, 3, 1, 2)
    assert (row["total_blocks"], row["free_blocks"]) == (100, 25)
    assert (row["tokens_per_s"], row["ttft_ms"], row["tpot_ms"]) == (12.346, [10.0, 20.0], [])
    assert 0 < row["lease_s"] <= 600
    assert said["totals"]["live"] == 1
    assert {queue["phase"] for queue in said["queues"]} == {"prefill"}


def test_the_queue_of_a_dead_node_is_listed(
    dashboard: Dashboard, node: FakeNode, cluster: Settings, server: RedisServer
) -> None:
    with Client(cluster, node=node.name) as beside:
        beside.submit_many([{"prompt": "p"}, {"prompt": "p"}])
        lose(node, server)
        said = dashboard.wait_for(lambda told: queued_of(told) == [2])
    [own] = [queue for queue in said["queues"] if queue["node"]]
    assert (own["node"], own["length"], own["orphaned"]) == (node.name, 2, True)
    [row] = said["nodes"]
    assert row["live"] is False


def test_dead_letters_are_listed_and_told_without_their_prompts(
    dashboard: Dashboard, node: FakeNode, producer: Client
) -> None:
    producer.submit(prompt="a secret", request_id="r1")
    bury_all(node, "too_large", "it does not fit")
    said = dashboard.wait_for(lambda told: bool(told["letters"]))
    [letter] = said["letters"]
    assert (letter["request_id"], letter["reason"], letter["detail"]) == (
        "r1",
        "too_large",
        "it does not fit",
    )
    assert said["totals"]["letters"] == 1
    told = dashboard.data("/cluster/letter", id=letter["id"])["letter"]
    assert "inferq.prefill" in told["text"]
    assert "secret" not in told["text"]
    assert dashboard.data("/cluster/letter", id="no-id") == {"letter": None}


def test_a_request_is_followed_from_its_queue_to_its_end(
    dashboard: Dashboard, node: FakeNode, producer: Client
) -> None:
    asked = "an-id/with?&<odd>\"signs'"
    producer.submit(prompt="p", request_id=asked)
    said = dashboard.data("/request/data", id=asked)
    assert (said["id"], said["status"]["state"]) == (asked, "queued")
    [job] = node.take()
    state = partial(dashboard.wait_for, path="/request/data", id=asked)
    said = state(lambda told: told["status"]["state"] == "running")
    assert said["status"]["node"] == node.name
    last = output_of(job, 10, [1, 2], attempt=1, last=True)
    crossing = Crossing("p@there", "tcp", 4096, 0.125)
    finish(
        node, job, last._replace(timings=Timings(0.5, 0.25, 2.0), node="d@here", crossing=crossing)
    )
    story = state(lambda told: told["story"] is not None)["story"]
    assert (story["request_id"], story["finish_reason"], story["attempt"], story["tokens"]) == (
        asked,
        "stop",
        1,
        12,
    )
    assert (story["queue_s"], story["prefill_s"], story["decode_s"]) == (0.5, 0.25, 2.0)
    assert (story["prefill_node"], story["node"]) == ("p@there", "d@here")
    assert (story["protocol"], story["kv_bytes"], story["transfer_s"]) == ("tcp", 4096, 0.125)
    latest = dashboard.wait_for(lambda told: bool(told["stories"]), "/request/data")
    assert [story["request_id"] for story in latest["stories"]] == [asked]


def test_an_unknown_request_is_said_to_be_unknown(dashboard: Dashboard) -> None:
    said = dashboard.data("/request/data", id="nobody")
    assert (said["status"]["state"], said["story"]) == ("unknown", None)


def test_an_id_longer_than_any_is_refused(dashboard: Dashboard) -> None:
    with dashboard.user() as user:
        answer = user.get("/request/data", params={"id": "x" * 2000})
    assert answer.status_code == 400
    assert "id: at most" in answer.text


@pytest.mark.parametrize("path", ["/request", "/cluster"])
def test_what_is_asked_for_is_never_markup(dashboard: Dashboard, path: str) -> None:
    with dashboard.user() as user:
        page = user.get(path, params={"id": HOSTILE})
    assert page.status_code == 200
    assert "<script>document" not in page.text
    assert "<img" not in page.text.replace('<img src="/static/favicon.ico', "")


def test_pages_let_only_their_own_files_run(dashboard: Dashboard) -> None:
    with dashboard.user() as user:
        page = user.get("/cluster")
        policy = page.headers["Content-Security-Policy"]
        inline = [tag for tag in page.text.split("<script")[1:] if not tag.startswith(" src=")]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert inline == []
    assert "style=" not in page.text


def test_many_viewers_cost_one_query(
    dashboard: Dashboard, node: FakeNode, server: RedisServer
) -> None:
    def look(_: int) -> int:
        with dashboard.user(VIEWER) as user:
            return user.get("/cluster/data").status_code

    with server.client() as client, ThreadPoolExecutor(8) as pool:
        client.config_resetstat()
        started_s = float(client.time()[0])
        codes = list(pool.map(look, range(40)))
        lasted_s = float(client.time()[0]) - started_s
        asked = client.info("commandstats")["cmdstat_xlen"]["calls"]
    assert codes == [200] * 40
    # One a second, and one when it began.
    assert asked <= lasted_s + 2


def test_a_large_cluster_is_one_answer(dashboard: Dashboard, cluster: Settings) -> None:
    crowd(cluster, 300, 10_000)
    said = dashboard.wait_for(lambda told: len(told["nodes"]) == 300)
    assert said["nodes_left_out"] == 0
    assert said["totals"]["waiting"] == 10_000
