"""What a metric is: its description for people, and the prometheus_client object that is made from it.

`workers/telemetry.py` has the catalogue. Both must stay cheap to import.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import product
from threading import Lock
from typing import Literal, NamedTuple

from prometheus_client import REGISTRY, Counter, Enum, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # A second series for each counter doubles a scrape.

Kind = Literal["counter", "gauge", "histogram", "state"]


class Label(NamedTuple):
    """A label with a fixed set of values: `values`, or those that the settings allow, as `bounded_by` says."""

    name: str
    values: tuple[str, ...] = ()
    bounded_by: str = ""


class Metric(NamedTuple):
    """The description of one metric.

    `meaning` says what it counts or measures, and `reading` what a change of it means: "Rising: a producer is broken."
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    reading: str
    labels: tuple[Label, ...] = ()

    @property
    def help(self) -> str:
        """The text that `/metrics` has."""
        return f"{self.meaning} {self.reading}".strip()

    @property
    def series(self) -> tuple[str, ...]:
        """The names by which queries find its series."""
        return (
            tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
            if self.kind == "histogram"
            else (self.name,)
        )


class Latencies(Collector):
    """A histogram that takes many values in one call, at about 0.1 µs a value. `Histogram.observe` takes 1 µs.

    Any thread may call it.
    """

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name, self._documentation, self._buckets = name, documentation, buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        self._lock = Lock()

    def observe_all(self, values: Iterable[float]) -> None:
        """Take values, in any order. A negative one, of clocks that differ, counts as 0."""
        ordered = sorted(values)
        if ordered and ordered[0] < 0:
            ordered = [max(0.0, value) for value in ordered]
        added = [*(bisect_right(ordered, bound) for bound in self._buckets), len(ordered)]
        with self._lock:
            self._sum += sum(ordered)
            self._counts = [before + count for before, count in zip(self._counts, added, strict=True)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Give the cumulative counts to a scrape."""
        bounds = [*(str(float(bound)) for bound in self._buckets), "+Inf"]
        with self._lock:
            counts, total = self._counts, self._sum
        yield HistogramMetricFamily(self._name, self._documentation, list(zip(bounds, counts, strict=True)), total)


class Catalogue(list[Metric]):
    """The descriptions of all metrics. Each method adds one, and returns the object with which the code counts."""

    def counter(self, name: str, unit: str, meaning: str, reading: str, *labels: Label) -> Counter:
        """Add a number that only rises."""
        metric = self._added(Metric(name, "counter", unit, meaning, reading, labels))
        counter = Counter(name, metric.help, [label.name for label in labels])
        for values in _series(labels):
            counter.labels(*values)
        return counter

    def gauge(self, name: str, unit: str, meaning: str, reading: str, *labels: Label) -> Gauge:
        """Add a number that rises and falls."""
        metric = self._added(Metric(name, "gauge", unit, meaning, reading, labels))
        gauge = Gauge(name, metric.help, [label.name for label in labels])
        for values in _series(labels):
            gauge.labels(*values)
        return gauge

    def histogram(
        self, name: str, unit: str, meaning: str, reading: str, buckets: Sequence[float], *labels: Label
    ) -> Histogram:
        """Add a distribution of values that are observed one by one."""
        metric = self._added(Metric(name, "histogram", unit, meaning, reading, labels))
        return Histogram(name, metric.help, [label.name for label in labels], buckets=buckets)

    def latencies(self, name: str, meaning: str, reading: str, buckets: Sequence[float]) -> Latencies:
        """Add a distribution of times in seconds, of which many are observed at once."""
        metric = self._added(Metric(name, "histogram", "seconds", meaning, reading))
        latencies = Latencies(name, metric.help, buckets)
        REGISTRY.register(latencies)
        return latencies

    def states(self, name: str, meaning: str, reading: str, values: Sequence[str]) -> Enum:
        """Add a state. Its label has the name of the metric, as prometheus_client makes it."""
        metric = self._added(Metric(name, "state", "state", meaning, reading, (Label(name, tuple(values)),)))
        return Enum(name, metric.help, states=values)

    def _added(self, metric: Metric) -> Metric:
        self.append(metric)
        return metric


def _series(labels: Sequence[Label]) -> Iterable[tuple[str, ...]]:
    """Give the values of every series that is known now.

    They are created at once: the first increase of a series that did not exist before is not visible to `increase()`.
    """
    return product(*(label.values for label in labels)) if labels and all(label.values for label in labels) else ()
