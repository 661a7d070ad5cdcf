"""Who may look, who may act, and what another site can make a browser do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from tornado.web import create_signed_value

from inferq import Client
from tests.fake_node import FakeNode
from tests.monitoring.flower.dashboard import OPERATOR, USERS, VIEWER, Dashboard
from tests.redis_server import RedisServer

PATHS = ["/cluster", "/cluster/data", "/cluster/letter", "/request", "/request/data"]
ACTIONS = {
    "drain": {"node": "n1@here"},
    "resume": {"node": "n1@here"},
    "cancel": {"id": "r1"},
    "requeue": {"id": "1-1"},
    "drop": {"id": "1-1"},
}
COOKIE_SECRET = "for-this-test-only"
Start = Callable[..., Dashboard]


@pytest.fixture
def start(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts Flower with these options."""
    running: list[Dashboard] = []

    def go(*options: str, **env: str) -> Dashboard:
        folder = tmp_path_factory.mktemp("flower")
        url = f"redis://127.0.0.1:{server.port}/0"
        running.append(Dashboard(folder, url, *options, env=env))
        return running[-1]

    yield go
    for dashboard in running:
        dashboard.close()


def is_live(producer: Client, request_id: str) -> bool:
    return producer.status(request_id).state in ("queued", "running")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("who", [None, ("ann", "wrong"), ("", "")])
def test_strangers_see_nothing(
    dashboard: Dashboard, path: str, who: tuple[str, str] | None
) -> None:
    with dashboard.user(who) as user:
        answer = user.get(path)
    assert answer.status_code == 401
    assert "default" not in answer.text


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("who", [None, ("ann", "wrong")])
def test_strangers_change_nothing(
    dashboard: Dashboard, action: str, who: tuple[str, str] | None
) -> None:
    assert dashboard.act(action, who, **ACTIONS[action]).status_code == 401


@pytest.mark.parametrize("action", ACTIONS)
def test_a_viewer_looks_and_does_not_act(
    dashboard: Dashboard, node: FakeNode, producer: Client, action: str
) -> None:
    producer.submit(prompt="p", request_id="r1")
    answer = dashboard.act(action, VIEWER, **ACTIONS[action])
    assert answer.status_code == 403
    assert "--inferq-operators" in answer.text
    assert is_live(producer, "r1")
    with dashboard.user(VIEWER) as user:
        assert user.get("/cluster/data").status_code == 200
        assert "may look, not act" in user.get("/cluster").text


def test_a_viewer_has_no_stock_action_either(dashboard: Dashboard) -> None:
    with dashboard.user(VIEWER) as user:
        shown = user.get("/api/workers")
        stopped = user.post("/api/worker/shutdown/n1@here")
        sent = user.post("/api/task/send-task/inferq.prefill", json={"args": []})
    assert shown.status_code == 200
    assert (stopped.status_code, sent.status_code) == (403, 403)
    with dashboard.user(OPERATOR) as user:
        assert user.post("/api/worker/shutdown/n1@here").status_code == 404


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_done_by_looking(dashboard: Dashboard, action: str) -> None:
    with dashboard.user() as user:
        assert user.get(f"/api/inferq/{action}").status_code == 405


@pytest.mark.parametrize(
    "change",
    [
        {"headers": {"X-XSRFToken": "beef"}},
        {"headers": {"X-XSRFToken": ""}},
        {"headers": {"Sec-Fetch-Site": "cross-site"}},
        {"headers": {"Sec-Fetch-Site": "same-site"}},
        {"headers": {"Origin": "http://evil.example"}},
        {"headers": {"Origin": "null"}},
        {"cookies": {"_xsrf": "beef"}},
    ],
)
def test_another_site_cannot_act(
    dashboard: Dashboard, producer: Client, change: dict[str, dict[str, str]]
) -> None:
    producer.submit(prompt="p", request_id="r1")
    with dashboard.user() as user:
        user.headers.update(change.get("headers", {}))
        user.cookies.update(change.get("cookies", {}))
        answer = user.post("/api/inferq/cancel", json={"id": "r1"})
    assert answer.status_code == 403
    assert is_live(producer, "r1")


def test_a_form_without_a_token_cannot_act(dashboard: Dashboard, producer: Client) -> None:
    producer.submit(prompt="p", request_id="r1")
    form = httpx.post(
        f"{dashboard.url}/api/inferq/cancel",
        auth=OPERATOR,
        content=b'{"id": "r1"}',
        headers={"Content-Type": "text/plain"},
    )
    assert form.status_code == 403
    assert is_live(producer, "r1")


def test_the_page_itself_can_act(dashboard: Dashboard, producer: Client) -> None:
    producer.submit(prompt="p", request_id="r1")
    with dashboard.user() as user:
        user.headers.update({"Origin": dashboard.url, "Sec-Fetch-Site": "same-origin"})
        answer = user.post("/api/inferq/cancel", json={"id": "r1"})
    assert answer.status_code == 200
    assert not is_live(producer, "r1")


def test_without_authentication_pages_are_shown_and_nobody_acts(
    start: Start, producer: Client
) -> None:
    open_to_all = start()
    producer.submit(prompt="p", request_id="r1")
    with open_to_all.user(None) as user:
        assert user.get("/cluster/data").status_code == 200
        assert "Actions need authentication" in user.get("/cluster").text
    answer = open_to_all.act("cancel", None, id="r1")
    assert answer.status_code == 401
    assert "FLOWER_UNAUTHENTICATED_API" in answer.text
    assert is_live(producer, "r1")


def test_an_api_for_all_is_still_closed_to_other_sites(start: Start, producer: Client) -> None:
    open_to_all = start(FLOWER_UNAUTHENTICATED_API="true")
    producer.submit_many([{"prompt": "p", "request_id": name} for name in ("r1", "r2")])
    assert open_to_all.act("cancel", None, id="r1").status_code == 200
    with open_to_all.user(None) as user:
        user.headers["Sec-Fetch-Site"] = "cross-site"
        assert user.post("/api/inferq/cancel", json={"id": "r2"}).status_code == 403
        # What a browser may send from another site: Flower lets it choose among these.
        allowed = user.options("/api/inferq/cancel").headers["Access-Control-Allow-Headers"]
    assert "xsrf" not in allowed.lower()
    assert is_live(producer, "r2")


def test_read_only_is_for_everybody(start: Start, producer: Client) -> None:
    read_only = start(*USERS, "--read-only=true", "--url-prefix=flower")
    producer.submit(prompt="p", request_id="r1")
    with read_only.user() as user:
        page = user.get("/flower/cluster")
        answer = user.post("/flower/api/inferq/cancel", json={"id": "r1"})
        sheet = user.get("/flower/inferq/static/inferq.css")
    assert "Read only mode is enabled" in page.text
    assert 'href="/flower/cluster"' in page.text
    assert (answer.status_code, answer.text) == (403, "Read only mode is enabled")
    assert sheet.status_code == 200
    assert is_live(producer, "r1")


def signed_in(dashboard: Dashboard, email: str) -> httpx.Client:
    """As after a login at an OAuth provider: Flower keeps the address in a signed cookie."""
    user = dashboard.user(None)
    cookie = create_signed_value(COOKIE_SECRET, "user", email).decode()
    user.cookies.set("user", cookie)
    return user


def test_users_of_an_oauth_provider_have_the_rights_of_their_addresses(
    start: Start, producer: Client
) -> None:
    dashboard = start(
        "--auth=ann@example.com|bob@example.com",
        f"--cookie-secret={COOKIE_SECRET}",
        FLOWER_INFERQ_OPERATORS="ann@example.com,carl@example.com",
    )
    producer.submit(prompt="p", request_id="r1")
    with dashboard.user(None) as stranger:
        assert stranger.get("/cluster").status_code == 302
        assert stranger.post("/api/inferq/cancel", json={"id": "r1"}).status_code == 403
    for nobody in ("eve@example.com", "ann@example.com.evil.example"):
        with signed_in(dashboard, nobody) as user:
            assert user.get("/cluster/data").status_code == 302
            assert user.post("/api/inferq/cancel", json={"id": "r1"}).status_code == 403
    with signed_in(dashboard, "bob@example.com") as viewer:
        assert viewer.get("/cluster/data").status_code == 200
        answer = viewer.post("/api/inferq/cancel", json={"id": "r1"})
        assert (answer.status_code, "--inferq-operators" in answer.text) == (403, True)
    assert is_live(producer, "r1")
    with signed_in(dashboard, "ann@example.com") as operator:
        assert operator.post("/api/inferq/cancel", json={"id": "r1"}).status_code == 200
    assert "asked for by 'ann@example.com'" in dashboard.process.log()
