"""The triggers of a ScaledObject, computed from the real group: its lag, and the metrics of its workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.fleet import Fleet
from tests.benchmarks.keda import KafkaTrigger, Metric
from tests.benchmarks.watching import Sample
from tests.site import Process

DEADLINE = "guardline_oldest_deadline_seconds"
COMMITTED = "guardline_records_committed_total"


class ByLag:
    """KEDA's Kafka trigger."""

    name = "Kafka trigger: the lag"

    def __init__(self, lag_threshold: int) -> None:
        self._trigger = KafkaTrigger(lag_threshold=lag_threshold, offset_reset_policy="earliest")

    def metrics(self, sample: Sample, fleet: Fleet) -> list[Metric]:
        """Return what the autoscaler gets at this moment."""
        return [Metric(self._trigger.lag(sample.committed, sample.ends), self._trigger.lag_threshold)]


class ByMetrics:
    """KEDA's Prometheus triggers, as the chart renders them: the used fraction of the target, and the rate of records.

    `rate_s` is the range of PromQL's `rate`. A worker that has ended is no longer scraped. The better one of a
    worker's last two deadlines counts, as `max_over_time` has it.
    """

    name = "Prometheus triggers: the oldest deadline and the rate"

    def __init__(self, *, target_s: float, scale_up_at: float, records_per_worker: float, rate_s: float) -> None:
        self._target_s = target_s
        self._scale_up_at = scale_up_at
        self._records_per_worker = records_per_worker
        self._rate_s = rate_s
        self._deadlines: dict[int, deque[float]] = {}
        self._counts: dict[int, deque[tuple[float, float]]] = {}

    def metrics(self, sample: Sample, fleet: Fleet) -> list[Metric]:
        """Scrape the workers, and return what the autoscaler gets at this moment."""
        now = time.monotonic()
        deadlines: list[float] = []
        per_s = 0.0
        for process in fleet.processes().values():
            found = scraped(process)
            if DEADLINE in found:
                seen = self._deadlines.setdefault(process.popen.pid, deque(maxlen=2))
                seen.append(found[DEADLINE])
                deadlines.append(max(seen))
            counts = self._counts.setdefault(process.popen.pid, deque())
            if COMMITTED in found:
                counts.append((now, found[COMMITTED]))
            while len(counts) > 1 and counts[0][0] < now - self._rate_s:
                counts.popleft()
            per_s += _rate(counts)
        used = 100 * max(0.0, 1 - min(deadlines, default=self._target_s) / self._target_s)
        return [
            Metric(used, 100 * self._scale_up_at, "Value"),
            Metric(per_s, self._records_per_worker),
        ]


def scraped(process: Process) -> Mapping[str, float]:
    """Return the samples without labels, but for the group, of a worker's /metrics; empty while it does not answer."""
    if "serving /livez" not in process.text:
        return {}
    try:
        text = process.get("/metrics")[1]
    except OSError:
        return {}
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.keys() <= {"group"}
    }


def _rate(counts: deque[tuple[float, float]]) -> float:
    (began, first), (ended, last) = counts[0] if counts else (0, 0), counts[-1] if counts else (0, 0)
    return (last - first) / (ended - began) if ended > began else 0.0
