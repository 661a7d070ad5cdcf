"""The application that Flower runs with, and what is said of a Flower that has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import flower.urls
import pytest
from celery.exceptions import ImproperlyConfigured
from flower.urls import settings as stock_settings
from flower.utils.broker import Broker, Redis, RedisSocket, RedisSsl
from flower.views.error import NotFoundErrorHandler
from tornado.web import url

from inferq import Settings
from inferq.monitoring.flower import plugin
from inferq.monitoring.flower.celery import create_flower_app
from inferq.monitoring.flower.loader import Loader, with_entries
from inferq.monitoring.flower.rights import Operators
from inferq.monitoring.flower.site import Site

SETTINGS = Settings(scheduler_name="global", scheduler_port=1)


@pytest.mark.parametrize(
    ("address", "shown", "kind"),
    [
        ("redis://:s%40crt@10.0.0.1:6390/3", "redis://:**@10.0.0.1:6390/3", Redis),
        ("rediss://u:s@h:6390/3?ssl_cert_reqs=none", "rediss://u:**@h:6390/3", RedisSsl),
        ("rediss://h:6390/3", "rediss://:**@h:6390/3", RedisSsl),
        ("unix://:s@/tmp/x.sock?db=2", "redis+socket://:**@/tmp/x.sock", RedisSocket),
    ],
)
def test_flower_finds_the_queues_wherever_redis_is(address: str, shown: str, kind: type) -> None:
    app = create_flower_app(Settings(scheduler_name="global", scheduler_url=address))
    with app.connection() as connection:
        assert connection.as_uri() == shown
        broker = Broker(
            connection.as_uri(include_password=True),
            broker_options=app.conf.broker_transport_options,
            broker_use_ssl=app.conf.broker_use_ssl,
        )
    assert isinstance(broker, kind)


def test_the_options_of_tls_reach_flower() -> None:
    address = "rediss://h:6390/3?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem"
    app = create_flower_app(Settings(scheduler_name="global", scheduler_url=address))
    assert app.conf.broker_use_ssl["ssl_ca_certs"] == "/etc/ca.pem"


def test_the_rest_of_the_application_is_that_of_the_nodes() -> None:
    app = create_flower_app(SETTINGS)
    assert {"inferq.prefill", "inferq.decode"} <= set(app.tasks)
    assert [queue.name for queue in app.conf.task_queues] == ["default.prefill"]


def test_our_pages_stand_before_the_one_that_says_not_found() -> None:
    handlers = plugin.with_pages(flower.urls.handlers, Site(SETTINGS))
    assert handlers[-1][1] is NotFoundErrorHandler
    names = [handler.name for handler in handlers if isinstance(handler, url)]
    assert {"inferq_cluster", "inferq_request", "main", "workers"} <= set(names)


def test_a_second_time_replaces() -> None:
    once = plugin.with_pages(flower.urls.handlers, Site(SETTINGS))
    twice = plugin.with_pages(once, Site(SETTINGS))
    assert len(once) == len(twice)
    assert [handler[1] for handler in once if not isinstance(handler, url)] == [
        handler[1] for handler in twice if not isinstance(handler, url)
    ]


@pytest.mark.parametrize("version", [(2, 1, 0), (2, 0), (3, 0, 0), (4,)])
def test_another_flower_is_refused(version: tuple[int, ...]) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Flower \d.*need 2\.2 or newer, below 3"):
        plugin.check_version(version)


@pytest.mark.parametrize("version", [(2, 2, 0), (2, 2, 7), (2, 9)])
def test_this_flower_is_not_refused(version: tuple[int, ...]) -> None:
    plugin.check_version(version)


@pytest.mark.parametrize("handlers", [[], flower.urls.handlers[:-1]])
def test_a_list_of_handlers_that_has_changed_is_named(handlers: list[object]) -> None:
    with pytest.raises(ImproperlyConfigured, match="its list of handlers"):
        plugin.with_pages(handlers, Site(SETTINGS))


@pytest.mark.parametrize("form", [url, lambda *parts: parts])
def test_an_action_whose_rights_cannot_be_checked_is_named(form: Any) -> None:
    added = [form("/api/new", NotFoundErrorHandler), *flower.urls.handlers]
    with pytest.raises(ImproperlyConfigured, match="/api/new"):
        plugin.with_pages(added, Site(SETTINGS))


def test_every_stock_action_checks_rights() -> None:
    handlers = plugin.with_pages(flower.urls.handlers, Site(SETTINGS))
    stock = [h for h in handlers if not isinstance(h, url) and h[0].startswith("/api/")]
    assert len(stock) > 10
    assert all(issubclass(handler[1], Operators) for handler in stock)


@pytest.mark.parametrize(
    "navbar", ["", "<ul></ul>", "{{ reverse_url('broker') }}", "reverse_url('tasks') </ul>"]
)
def test_a_navigation_that_has_changed_is_named(navbar: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="its navigation"):
        with_entries(navbar)


def test_templates_are_looked_for_among_ours_and_flowers_only() -> None:
    loader = Loader(stock_settings["template_path"])
    assert loader.load("inferq_cluster.html") is not None
    assert loader.load("broker.html") is not None
    with pytest.raises(FileNotFoundError):
        loader.load("../../plugin.py")


def start(folder: Path, **env: str) -> str:
    """What Flower says when it cannot start."""
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "inferq.monitoring.flower", "flower"],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[3]), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    return ended.stderr


def test_there_is_nothing_to_see_of_local_mode(tmp_path: Path) -> None:
    assert "scheduler_name='local'" in start(tmp_path, INFERQ_SCHEDULER_NAME="local")


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    assert "scheduler_port" in start(tmp_path, INFERQ_SCHEDULER_PORT="many")


def test_a_missing_flower_is_named(tmp_path: Path) -> None:
    (tmp_path / "flower").mkdir()
    (tmp_path / "flower" / "__init__.py").write_text("VERSION = (2, 2, 0)\n")
    script = "from inferq.monitoring.flower.celery import make_app; make_app()"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "pip install 'inferq[flower]'" in ended.stderr
