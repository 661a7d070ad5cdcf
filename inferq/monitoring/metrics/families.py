"""Builds what prometheus_client writes out, from the catalogue."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family

from inferq.monitoring.metrics.catalogue import Metric
from inferq.worker.histogram import Distribution

#: Labels are cut at this length, characters: names of nodes are theirs to choose.
MAX_LABEL = 120
#: Beyond this, a number in a record makes no sense.
MAX_NUMBER = 1e15


class Families:
    """Collects samples, by name; those without a sample do not show."""

    def __init__(self, metrics: Iterable[Metric], constant: Mapping[str, str]) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._constant = {name: label(value) for name, value in constant.items()}
        self._families: dict[str, Family] = {}

    def __iter__(self) -> Iterator[Family]:
        return iter(self._families.values())

    def add(self, name: str, value: float, *labels: str) -> None:
        """A counter's or gauge's value, with its labels in the catalogue's order."""
        family = self._family(name)
        assert isinstance(family, (CounterMetricFamily, GaugeMetricFamily))
        family.add_metric(self._labels(labels), _sound(value))

    def describe(self, name: str, *labels: str) -> None:
        """An info's labels."""
        family = self._family(name)
        assert isinstance(family, InfoMetricFamily)
        names = self._metrics[name].labels
        given = {key: label(value) for key, value in zip(names, labels, strict=True)}
        family.add_metric(list(self._constant.values()), given)

    def distribute(self, name: str, seen: Distribution) -> None:
        """A histogram."""
        family = self._family(name)
        assert isinstance(family, HistogramMetricFamily)
        bounds = [*(str(float(bound)) for bound in seen.bounds), "+Inf"]
        buckets = list(zip(bounds, seen.counts, strict=True))
        family.add_metric(self._labels(()), buckets, seen.total)

    def _labels(self, given: tuple[str, ...]) -> list[str]:
        return [*self._constant.values(), *map(label, given)]

    def _family(self, name: str) -> Family:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = self._create(self._metrics[name])
        return family

    def _create(self, metric: Metric) -> Family:
        labels = [*self._constant, *metric.labels]
        if metric.kind == "counter":
            return CounterMetricFamily(metric.name, metric.help, labels=labels)
        if metric.kind == "gauge":
            return GaugeMetricFamily(metric.name, metric.help, labels=labels)
        if metric.kind == "histogram":
            return HistogramMetricFamily(metric.name, metric.help, labels=labels)
        name = metric.name.removesuffix("_info")
        return InfoMetricFamily(name, metric.help, labels=list(self._constant))


def label(text: str) -> str:
    """A text that anybody may have chosen, as a label: short, and such that it can be written.

    Different texts stay different. The writer escapes quotes and line ends.
    """
    sound = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    if len(sound) <= MAX_LABEL:
        return sound
    return f"{sound[:MAX_LABEL]}~{zlib.crc32(sound.encode()):08x}"


def _sound(value: float) -> float:
    return float(min(MAX_NUMBER, max(-MAX_NUMBER, value)))
