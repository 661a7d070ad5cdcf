"""Log lines: whose they are, what they hide, and how few there are."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.app.task import Context

from inferq import Settings
from inferq.monitoring import logs
from inferq.worker.tracer import current_context
from tests.cluster_harness import Cluster
from tests.faults.answers import check_answers, submit

PASSWORD = "p@ss/word-1"
URL = "redis://user:p%40ss%2Fword-1@127.0.0.1:1/0"


def settings(log_format: str = "text", **more: object) -> Settings:
    return Settings(monitoring={"log_format": log_format}, **more)


@pytest.fixture
def handler() -> Iterator[logging.StreamHandler[io.StringIO]]:
    """The only handler of the root logger, as Celery leaves it."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    made = logging.StreamHandler(io.StringIO())
    made.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    root.handlers[:] = [made]
    root.setLevel(logging.INFO)
    levels = {name: logging.getLogger(name).level for name in logs._PER_REQUEST}
    yield made
    root.handlers[:] = before
    root.setLevel(level)
    for name, its_level in levels.items():
        logging.getLogger(name).setLevel(its_level)


@pytest.fixture
def written(
    handler: logging.StreamHandler[io.StringIO],
) -> Callable[[], list[str]]:
    return lambda: handler.stream.getvalue().splitlines()


@pytest.fixture
def in_request() -> Iterator[str]:
    token = current_context.set(Context(id="r-1"))
    yield "r-1"
    current_context.reset(token)


def test_a_json_line_says_node_and_request(
    written: Callable[[], list[str]], in_request: str
) -> None:
    logs.configure(settings("json"), "n@host")
    logging.getLogger("inferq.x").warning('a "word" of %s\nand more', "mine")
    [line] = written()
    said = json.loads(line)
    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "warning",
        "logger": "inferq.x",
        "node": "n@host",
        "topic": "default",
        "request_id": in_request,
        "message": 'a "word" of mine\nand more',
    }


def test_a_logfmt_line_is_one_line_of_pairs(
    written: Callable[[], list[str]], in_request: str
) -> None:
    logs.configure(settings("logfmt"), 'a "node"')
    logging.getLogger("inferq.x").warning("it=is\nso")
    [line] = written()
    assert 'level=warning logger=inferq.x node="a \\"node\\"" topic=default' in line
    assert f'request_id={in_request} message="it=is\\nso"' in line


def test_text_is_what_it_was_with_the_request_behind(
    written: Callable[[], list[str]], in_request: str
) -> None:
    logs.configure(settings(), "n")
    logger = logging.getLogger("inferq.x")
    logger.warning("it is so")
    logger.warning("%s is named", in_request)
    assert written() == ["[WARNING] it is so request_id=r-1", "[WARNING] r-1 is named"]


@pytest.mark.parametrize("log_format", ["text", "logfmt", "json"])
def test_outside_of_requests_no_request_is_named(
    written: Callable[[], list[str]], log_format: str
) -> None:
    logs.configure(settings(log_format), "n")
    logging.getLogger("inferq.x").warning("it is so")
    [line] = written()
    assert "request_id" not in line


def test_celerys_own_lines_about_a_task_name_it(written: Callable[[], list[str]]) -> None:
    logs.configure(settings("json"), "n")
    logging.getLogger("x").warning("received", extra={"data": {"id": "r-2"}})
    assert json.loads(written()[0])["request_id"] == "r-2"


@pytest.mark.parametrize("log_format", ["text", "logfmt", "json"])
@pytest.mark.parametrize(
    "given",
    [
        {"scheduler_password": PASSWORD},
        {"scheduler_url": URL},
        {"transfer": {"token": PASSWORD}},
        {"openai": {"api_key": PASSWORD}},
    ],
)
def test_secrets_are_not_written(
    written: Callable[[], list[str]], log_format: str, given: dict[str, object]
) -> None:
    logs.configure(settings(log_format, **given), "n")
    try:
        raise ValueError(f"cannot use {PASSWORD}")
    except ValueError:
        logging.getLogger("inferq.x").exception("it is %s, at %s", PASSWORD, URL)
    text = "\n".join(written())
    assert "***" in text
    assert "ValueError" in text
    assert PASSWORD not in text
    assert "word-1@" not in text


def test_a_secret_in_a_file_is_not_written(
    written: Callable[[], list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_text(f"{PASSWORD}\n")
    logs.configure(settings(openai={"api_key_file": str(path)}), "n")
    logging.getLogger("inferq.x").warning("it is %s", PASSWORD)
    assert written() == ["[WARNING] it is ***"]


@pytest.mark.parametrize("log_format", ["text", "logfmt", "json"])
def test_what_no_encoding_can_write_does_not_stop_others(
    handler: logging.StreamHandler[Any], log_format: str
) -> None:
    raw = io.BytesIO()
    handler.setStream(io.TextIOWrapper(raw, "ascii", "backslashreplace"))
    logs.configure(settings(log_format), "n\udc80\x1b[31m")
    logging.getLogger("inferq.x").warning("a\udc80\x00ü")
    logging.getLogger("inferq.x").warning("next")
    handler.flush()
    assert len(raw.getvalue().decode().splitlines()) == 2


def test_long_messages_are_cut(written: Callable[[], list[str]]) -> None:
    logs.configure(settings("json"), "n")
    logging.getLogger("inferq.x").warning("m" * 1_000_000)
    assert len(written()[0]) < 20_000


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_lines_about_each_request_need_debug_or_a_setting(
    handler: logging.StreamHandler[io.StringIO], level: int
) -> None:
    logging.getLogger().setLevel(level)
    logs.configure(settings(), "n")
    assert not logging.getLogger("celery.worker.strategy").isEnabledFor(logging.INFO)


def test_debug_shows_all(handler: logging.StreamHandler[io.StringIO]) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    logs.configure(settings(), "n")
    assert logging.getLogger("celery.worker.strategy").isEnabledFor(logging.INFO)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, monitoring={"log_format": "json"}) as made:
        yield made


def test_a_node_at_info_says_nothing_of_requests_that_go_well(cluster: Cluster) -> None:
    [node] = cluster.start("a")
    before = len(node.log())
    with cluster.client() as client:
        check_answers(submit(client, "quiet", 20, tokens=5, pace_ms=1), 5)
    node.term()
    assert node.wait() == 0
    assert "quiet-" not in node.log()
    lines = [json.loads(line) for line in node.log()[before:].splitlines() if line[:1] == "{"]
    assert len(lines) < 20
    assert {line["node"] for line in lines} <= {node.name}


def test_a_node_that_is_asked_to_names_each_request(cluster: Cluster) -> None:
    node = cluster.node("a", options=("--setting", "monitoring.log_requests=true"))
    cluster.ready(node)
    with cluster.client() as client:
        check_answers(submit(client, "loud", 5, tokens=5, pace_ms=1), 5)
    cluster.wait(lambda: node.log().count("received") >= 5)
    lines = [json.loads(line) for line in node.log().splitlines() if line[:1] == "{"]
    named = {line["request_id"] for line in lines if "received" in line["message"]}
    assert named == {f"loud-{n}" for n in range(5)}


def test_a_request_that_fails_badly_is_named_with_its_error(cluster: Cluster) -> None:
    node = cluster.node("a", options=("--engine", "tests.monitoring.broken_engine:factory"))
    cluster.ready(node)
    with cluster.client() as client, pytest.raises(Exception, match="out of order"):
        client.submit(request_id="bad-1", prompt="x", max_tokens=1).result(timeout=60)
    cluster.wait(lambda: "out of order" in node.log())
    lines = [json.loads(line) for line in node.log().splitlines() if line[:1] == "{"]
    [failure] = [line for line in lines if "out of order" in line.get("error", "")]
    assert (failure["request_id"], failure["node"]) == ("bad-1", node.name)
    assert failure["level"] == "error"
    assert "Traceback" in failure["error"]
