"""The pages in a browser, over topics that tests have made up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inferq import Client, Settings
from tests.fake_node import FakeNode
from tests.monitoring.flower.browser import Browser
from tests.monitoring.flower.dashboard import VIEWER, Dashboard
from tests.monitoring.flower.support import HOSTILE, bury_all, crowd, lose, say
from tests.redis_server import RedisServer
from tests.support import wait_until


@pytest.fixture
def page(dashboard: Dashboard, browser: Browser) -> Iterator[Browser]:
    """The Cluster page, as the operator sees it. Nothing may be written to the console."""
    browser.open(f"{dashboard.signed_in()}/cluster")
    browser.complaints()
    yield browser
    assert browser.complaints() == []


def test_rows_appear_change_and_go(
    page: Browser, node: FakeNode, producer: Client, server: RedisServer
) -> None:
    wait_until(lambda: node.name in page.text("#nodes"))
    say(node, free_blocks=25, ttft_ms=[12.345, 1234.5], tokens_per_s=1.005)
    wait_until(lambda: "75 of 100" in page.text("#nodes"))
    assert "12.3 / 1,235" in page.text("#nodes")
    width = "return getComputedStyle(document.querySelector('.inferq-bar > div')).width"
    bar = "return getComputedStyle(document.querySelector('.inferq-bar')).width"
    filled, whole = (float(str(page.run(script))[:-2]) for script in (width, bar))
    assert filled == pytest.approx(0.75 * whole, rel=0.02)
    producer.submit_many({"prompt": "p"} for _ in range(1234))
    wait_until(lambda: page.text("#total-waiting") == "1,234")
    assert "default.prefill" in page.text("#queues")
    lose(node, server)
    wait_until(lambda: "lost" in page.text("#nodes .badge"))
    with server.client() as client:
        client.delete("inferq:default:nodes")
    wait_until(lambda: "No node has joined" in page.text("#nodes"))


def test_the_queue_of_a_dead_node_stands_out(
    page: Browser, node: FakeNode, cluster: Settings, server: RedisServer
) -> None:
    with Client(cluster, node=node.name) as beside:
        beside.submit_many([{"prompt": "p"}, {"prompt": "p"}])
        lose(node, server)
        wait_until(lambda: "its node is gone" in page.text("#queues .text-danger"))


def test_hostile_names_are_text(
    page: Browser, dashboard: Dashboard, node: FakeNode, server: RedisServer
) -> None:
    say(node, host=HOSTILE, engine=HOSTILE, version=HOSTILE, role=HOSTILE)
    odd = FakeNode(node.topic.settings, HOSTILE)
    with server.client() as client:
        client.lpush("default.prefill", HOSTILE)
    bury_all(odd, HOSTILE, HOSTILE)
    wait_until(lambda: page.text("#nodes").count("<script>") >= 4)
    wait_until(lambda: "<script>" in page.text("#letters"))
    page.click("#letters tbody button")
    wait_until(lambda: "no JSON" in page.text("#letter"))
    assert (
        page.run("return document.querySelectorAll('#inferq-page script, img[src=x]').length") == 0
    )
    assert page.run("return document.title") == "Cluster · Flower"
    page.open(f"{dashboard.url}/request?id=%3Cscript%3Edocument.title='owned'%3C/script%3E\"'")
    wait_until(lambda: page.text("#request-state") == "unknown")
    assert "<script>" in page.text("#request-title")
    assert "owned" not in str(page.run("return document.title")).replace(
        "document.title='owned'", ""
    )
    odd.close()


def test_a_dead_letter_is_dropped_when_its_user_is_sure(
    page: Browser, node: FakeNode, producer: Client
) -> None:
    producer.submit(prompt="p", request_id="buried")
    bury_all(node)
    wait_until(lambda: "buried" in page.text("#letters"))
    page.click("#letters .btn-outline-danger")
    assert "cannot be brought back" in page.accept()
    wait_until(lambda: "There are no dead letters" in page.text("#letters"))
    wait_until(lambda: "dropped" in page.text(".toast"))


def test_a_viewer_sees_buttons_that_say_why_not(
    dashboard: Dashboard, node: FakeNode, browser: Browser
) -> None:
    browser.open(f"{dashboard.signed_in(VIEWER)}/cluster")
    wait_until(lambda: node.name in browser.text("#nodes"))
    button = "document.querySelector('#nodes td:last-child button')"
    assert browser.run(f"return {button}.disabled") is True
    assert "may look, not act" in str(browser.run(f"return {button}.title"))
    browser.complaints()


def test_redis_away_is_said_and_its_return_noticed(
    page: Browser, node: FakeNode, server: RedisServer
) -> None:
    wait_until(lambda: node.name in page.text("#nodes"))
    server.stop()
    wait_until(lambda: "Redis cannot be used" in page.text("#inferq-error"))
    assert page.text("#inferq-status") == "Update failed"
    # What was known is still there to be read.
    assert node.name in page.text("#nodes")
    server.start()
    wait_until(lambda: page.text("#inferq-error") == "")
    wait_until(lambda: "No node has joined" in page.text("#nodes"))


def test_a_large_cluster_can_be_searched_and_sorted(page: Browser, cluster: Settings) -> None:
    crowd(cluster, 300, 10_000)
    rows = "return document.querySelectorAll('#nodes tbody tr').length"
    wait_until(lambda: page.run(rows) == 300)
    assert page.text("#total-waiting") == "10,000"
    page.type("#nodes-filter", "gpu29")
    assert page.run(rows) == 11
    page.click("#nodes thead button")
    upwards = page.text("#nodes tbody a").split("\n")
    page.click("#nodes thead button")
    assert page.text("#nodes tbody a").split("\n") == upwards[::-1]
    assert sorted(upwards) == sorted(f"gpu{n}@host{n // 8}" for n in (29, *range(290, 300)))
