"""A real Prometheus, and the files that are given to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_harness import free_port
from tests.monitoring.metrics.scrape import get
from tests.support import LONG_S, wait_until

DEPLOY = Path(__file__).parents[3] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "inferq.json"

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are not installed (Debian: apt-get install prometheus)",
)


def promtool(*arguments: str, given: str = "") -> str:
    """What promtool says; it must have nothing to complain of."""
    done = subprocess.run(
        ["promtool", *arguments],
        check=False,
        input=given,
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def expressions() -> dict[str, str]:
    """All queries of the dashboard, by panel and letter, with its variables filled in."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$topic", ".*").replace("$node", ".*")
            name = f"{panel['id']} {panel['title']} {target['refId']}"
            found[name] = query.replace("$__rate_interval", "1m")
    return found


def metric_names() -> set[str]:
    """The names of our metrics that the alerts and the dashboard speak of."""
    rules = re.findall(r"^ +(?:expr: |[ (>]).*$", ALERTS.read_text(), re.MULTILINE)
    texts = [line for line in rules if "summary" not in line]
    texts += [DASHBOARD.read_text()]
    return {name for text in texts for name in re.findall(r"\binferq_\w+", text)}


@contextmanager
def running(folder: Path, nodes: Sequence[int], cluster: int) -> Iterator[int]:
    """A Prometheus with our files that scrapes these ports, every second; its port."""
    text = CONFIG.read_text()
    for job, ports in (("9101", nodes), ("5555", [cluster])):
        targets = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        assert text.count(f'["127.0.0.1:{job}"]') == 1
        text = text.replace(f'["127.0.0.1:{job}"]', f"[{targets}]")
    text = text.replace("5s", "1s")
    folder.mkdir()
    (folder / CONFIG.name).write_text(text)
    (folder / ALERTS.name).write_text(ALERTS.read_text())
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / CONFIG.name}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: process.poll() is not None or _is_ready(port))
        assert process.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(LONG_S)


def _is_ready(port: int) -> bool:
    try:
        return get(port, "/-/ready")[0] == 200
    except OSError:
        return False


def firing(alerts: Any) -> set[str]:
    """The names of the alarms that are on."""
    return {a["labels"]["alertname"] for a in alerts["alerts"] if a["state"] == "firing"}
