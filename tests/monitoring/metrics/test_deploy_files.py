"""The files for Prometheus and Grafana, without a running one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from inferq.monitoring.metrics.catalogue import CLUSTER, NODE, Metric
from tests.monitoring.metrics.prometheus import (
    ALERTS,
    CONFIG,
    DASHBOARD,
    metric_names,
    needs_prometheus,
    promtool,
)

DOCS = Path(__file__).parents[3] / "docs"
METRICS = (*NODE, *CLUSTER)


@needs_prometheus
def test_promtool_finds_no_fault() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(ALERTS))
    assert "SUCCESS" in promtool("check", "config", str(CONFIG))


def test_files_speak_of_metrics_that_exist() -> None:
    known = {metric.name for metric in METRICS}
    known |= {f"{metric.name}_bucket" for metric in METRICS if metric.kind == "histogram"}
    assert metric_names() <= known
    assert len(metric_names()) > 20


def test_the_dashboard_is_sound() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "inferq"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert all(panel["title"] for panel in dashboard["panels"])
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_documented(metric: Metric) -> None:
    name, kind, _, labels = metric
    rows = re.findall(rf"^\| `{name}` \|.*$", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert len(rows) == 1, f"{name} is in docs/metrics.md {len(rows)} times"
    assert kind in rows[0]
    for label in labels:
        assert f"`{label}`" in rows[0]


def test_nothing_else_is_documented() -> None:
    text = (DOCS / "metrics.md").read_text()
    named = set(re.findall(r"^\| `(inferq_\w+)` \|", text, re.MULTILINE))
    assert named == {metric.name for metric in METRICS}


def test_each_alarm_is_explained() -> None:
    alarms = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    explained = re.findall(r"^### (Inferq\w+)$", (DOCS / "operations.md").read_text(), re.MULTILINE)
    assert sorted(alarms) == sorted(explained)
