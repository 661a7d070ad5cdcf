"""Real workers: what Flower's own pages show of them, and drain and resume."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster_harness import TOPIC, Cluster
from tests.faults.processes import Process
from tests.monitoring.flower.browser import Browser
from tests.monitoring.flower.dashboard import USERS, VIEWER, Dashboard
from tests.support import wait_until

#: As prompt tokens: how long an engine takes for a token, ms. See tests/faults/engine.py.
SLOW = [50]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("live")) as running:
        yield running


@pytest.fixture(scope="module")
def worker(live: Cluster) -> Process:
    [node] = live.start("gpu0")
    return node


@pytest.fixture(scope="module")
def watched(live: Cluster, worker: Process) -> Iterator[Dashboard]:
    """A dashboard of the node's topic."""
    with Dashboard(live.folder, live.server.url, *USERS, topic=TOPIC) as running:
        yield running


def state_of(told: Any, node: Process) -> str:
    return str({row["name"]: row["state"] for row in told["nodes"]}[node.name])


def test_drain_and_resume_reach_the_node_and_say_so(watched: Dashboard, worker: Process) -> None:
    drained = watched.act("drain", node=worker.name)
    assert (drained.status_code, drained.json()["message"]) == (200, f"{worker.name}: draining")
    watched.wait_for(lambda told: state_of(told, worker) == "draining")
    resumed = watched.act("resume", node=worker.name)
    assert (resumed.status_code, resumed.json()["message"]) == (200, f"{worker.name}: ready")
    watched.wait_for(lambda told: state_of(told, worker) == "ready")


def test_a_viewer_drains_nobody(watched: Dashboard, worker: Process) -> None:
    assert watched.act("drain", VIEWER, node=worker.name).status_code == 403
    assert state_of(watched.data(), worker) == "ready"


def test_flowers_own_pages_show_the_node(watched: Dashboard, worker: Process) -> None:
    with watched.user() as user:
        user.get("/workers", params={"refresh": "1"})
        wait_until(lambda: user.get(f"/worker/{worker.name}").status_code == 200)
        page = user.get(f"/worker/{worker.name}").text
        # Flower lists whom it has heard: a heartbeat every other second.
        wait_until(lambda: worker.name in user.get("/workers").text)
    assert f"{TOPIC}.prefill" in page
    # Of the bootstep's info, and of the pool's.
    assert "total_blocks" in page
    assert re.search(r"running.tasks", page, re.IGNORECASE)


def test_a_user_clicks_through(
    live: Cluster, watched: Dashboard, worker: Process, browser: Browser
) -> None:
    browser.open(f"{watched.signed_in()}/cluster")
    wait_until(lambda: worker.name in browser.text("#nodes tbody"))
    assert "ready" in browser.text("#nodes .badge")
    with live.client() as producer:
        producer.submit(prompt_token_ids=SLOW, max_tokens=4000, request_id="watched")
        # The page learns of it by itself.
        wait_until(lambda: browser.text("#total-running") == "1")
        browser.click("#nodes td:last-child button")
        wait_until(lambda: "draining" in browser.text("#nodes .badge"))
        wait_until(lambda: f"{worker.name}: draining" in browser.text(".toast"))
        browser.click("#nodes td:last-child button")
        wait_until(lambda: "ready" in browser.text("#nodes .badge"))

        browser.click('a[href="/request"]')
        browser.type("input[name=id]", "watched")
        browser.click("form button")
        wait_until(lambda: browser.text("#request-state") == "running")
        assert worker.name in browser.text("#request-facts")
        browser.click("#request-cancel")
        assert browser.accept() == "Cancel this request?"
        wait_until(lambda: browser.text("#request-state") == "cancelled")
        assert "watched" in browser.text("#stories tbody")
    assert browser.complaints() == []


def test_an_answered_request_shows_where_its_time_went(
    live: Cluster, watched: Dashboard, browser: Browser
) -> None:
    with live.client() as producer:
        producer.submit(prompt_token_ids=SLOW, max_tokens=5, request_id="answered").result(60)
    browser.open(f"{watched.url}/request?id=answered")
    wait_until(lambda: browser.text("#request-state") == "length")
    facts = browser.text("#request-facts")
    assert "5 tokens" in facts
    assert re.search(r"Decode\n[\d.]+ ms", facts)
    assert browser.run("return document.querySelectorAll('#request-phases > div').length") >= 2
    assert browser.complaints() == []
