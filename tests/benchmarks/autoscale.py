"""`make bench-autoscale`: real workers are started and stopped by what KEDA and the autoscaler compute, under a load.

The load has a step, a spike and a quiet end. It runs twice: with KEDA's Kafka trigger, then with its Prometheus
triggers. The lag, the metrics, the workers, their starts and their drains are real. The engine is a stand-in that
judges a fixed number of prompts a second and uses no core, so that four workers really do four times the work on two
cores. The times of the autoscaler are `SPEED` times shorter than those of the chart: a minute of its windows passes in
3 s. The workers do not start any faster, so that for the autoscaler a start seems to take more than a minute.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from infra.devstack.stack import Stack, running
from tests.benchmarks.fleet import Fleet, throw_away
from tests.benchmarks.keda import Autoscaler, Change, Metric, Policy, Rules, flaps
from tests.benchmarks.plots import Line, Panel, timeline
from tests.benchmarks.triggers import ByLag, ByMetrics
from tests.benchmarks.watching import Sample, Watch
from tests.site import Site, eventually
from workers.load.records import Mix
from workers.load.run import Load, run
from workers.load.schedule import Piece, rate_at
from workers.load.tally import Second

IMAGE = Path(__file__).parents[2] / "docs" / "images" / "autoscaling.svg"

SPEED = 20.0
MAXIMUM = 4
PARTITIONS = 4

SYNC_S = 15 / SPEED
GROWTH = (Policy("Pods", 2, 30 / SPEED), Policy("Percent", 100, 30 / SPEED))
UP = Rules(0, GROWTH)
UP_BY_LAG = Rules(60 / SPEED, GROWTH)
"""A rebalance stops the commits for about a second. A lag threshold as low as here would take that for a load."""

DOWN = Rules(300 / SPEED, (Policy("Pods", 1, 60 / SPEED),))

PER_WORKER_S = 100
"""What a worker judges: `FixedPace`."""

LAG_THRESHOLD = 15
"""About what a worker has in flight at its normal load: 80 records/s, each of which takes 0.15 s to its commit."""

TARGET_S = 10.0

CALM, STEP, SPIKE, QUIET = 50.0, 230.0, 600.0, 15.0
LOAD = (
    Piece(5, CALM, CALM),
    Piece(25, STEP, STEP),
    Piece(6, SPIKE, SPIKE),
    Piece(16, STEP, STEP),
    Piece(20, QUIET, QUIET),
)
RISES_S = (5.0, 30.0)
SETTLED_S = 40.0
CALM_S = 4.0
"""Before the load: the autoscaler's windows are full when it begins."""


# Small micro-batches and little read ahead: of a worker that judges 100 records/s, a drain must not take long.
SETTINGS = {
    "GUARDLINE_BATCH__MAX_COUNT": "16",
    "GUARDLINE_BATCH__LOW_WATER": "100",
    "GUARDLINE_KAFKA__SESSION_TIMEOUT_S": "",
    "GUARDLINE_WORKER__TARGET_S": str(TARGET_S),
}


class Trigger(Protocol):
    """Where the wishes come from."""

    @property
    def name(self) -> str:
        """For the plot."""

    def metrics(self, sample: Sample, fleet: Fleet) -> list[Metric]:
        """Return the metrics of this moment."""


@dataclass(frozen=True)
class Ran:
    """What a run has shown."""

    name: str
    result: dict[str, Any]
    samples: Sequence[Sample]
    seconds: Sequence[Second]
    changes: Sequence[Change]


class LoadThread(threading.Thread):
    """Runs the load beside the autoscaler, and notes each accepted position for the check at the end."""

    def __init__(self, site: Site) -> None:
        super().__init__(name="load", daemon=True)
        self._site = site
        self.seconds: list[Second] = []
        self.summary: dict[str, Any] = {}
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Send everything, and wait for the outcomes."""
        try:
            self.summary = run(
                self._site.settings(),
                Load(LOAD, Mix(duplicates=0.02, invalid=0.005), wait_s=60),
                each_second=self.seconds.append,
                accepted=lambda position, _: self._site.sent.append(position),
            )
        except BaseException as error:
            self.failure = error


def scaled(stack: Stack, trigger: Trigger, up: Rules) -> Ran:
    """Run the load once with this trigger."""
    site = Site(stack.kafka, stack.redis, partitions=PARTITIONS)
    site.environment["GUARDLINE_TOPICS__INPUTS"] = json.dumps([f"{site.settings().kafka.group}.chat"])
    program = (sys.executable, "-m", "tests.benchmarks.timed_worker", str(10**9), "fixed-pace")
    fleet = Fleet(site, *program, **SETTINGS)
    with throw_away(site):
        fleet.scale_to(1)
        fleet.wait_until(fleet.are_ready, "the first worker is ready")
        # One record, so that the group has committed: KEDA sees no lag of a group that never did.
        site.events(PARTITIONS * 4)
        eventually(lambda: site.answered() == len(site.sent), "the first records are answered")
        load, began = LoadThread(site), time.monotonic() + CALM_S
        watch = Watch(site, fleet.running, began)
        watch.start()
        changes = scale(Autoscaler(1, MAXIMUM, up, DOWN), fleet, watch, trigger, load, began)
        fleet.end()
        watch.stop()
        assert load.failure is None, load.failure
        assert not fleet.failed, fleet.failed
        outcome = site.outcome()
        result = {
            "lost": len(set(site.sent) - set(outcome.by_position)),
            "doubled": sum(len(found) - 1 for found in outcome.by_position.values()),
            "flaps": flaps(changes, RISES_S),
            "lag_at_end": watch.samples[-1].lag,
            "workers": max(change.after for change in changes),
            "changes": [f"{change.before}-{change.after}" for change in changes],
            "drained": fleet.drained,
            "longest_drain_s": max(one["drain_s"] for one in fleet.ended),
            "disorder": load.summary["disorder"],
            "p99_ms": load.summary["latency_ms"]["p99"],
        }
        if not result["lost"] and not result["doubled"]:
            site.check()  # Also the order, the review items and the offsets.
        return Ran(trigger.name, result, watch.samples, load.seconds, changes)


def scale(
    scaler: Autoscaler, fleet: Fleet, watch: Watch, trigger: Trigger, load: LoadThread, began: float
) -> list[Change]:
    """Start the load at `began`, and synchronise until the group is small and idle again, or `SETTLED_S` later."""
    changes: list[Change] = []
    end = began + sum(piece.seconds for piece in LOAD) + SETTLED_S
    while time.monotonic() < end:
        began_sync = time.monotonic()
        if load.ident is None and began_sync >= began:
            load.start()
        fleet.tick()
        sample = watch.last
        if sample is not None:
            metrics = trigger.metrics(sample, fleet)
            before = fleet.wanted
            wanted = scaler.decide(began_sync, before, metrics)
            if wanted != before:
                changes.append(Change(round(began_sync - began, 1), before, wanted))
                fleet.scale_to(wanted)
                seen = ", ".join(f"{one.value:.0f}/{one.target:g}" for one in metrics)
                print(f"{changes[-1].at_s:6.1f} s  {before} -> {wanted} workers ({seen})", flush=True)
            if load.ident and not load.is_alive() and wanted == 1 and sample.lag == 0 and len(fleet.running()) == 1:
                break
        time.sleep(max(0.0, began_sync + SYNC_S - time.monotonic()))
    return changes


def panels(ran: Ran) -> list[Panel]:
    """Return what a run looked like: the load and what was answered, the lag, and the workers."""
    whole_s = sum(piece.seconds for piece in LOAD)
    times = [at / 4 for at in range(int(4 * whole_s))]
    samples = [one for one in ran.samples if one.at_s >= 0]
    return [
        Panel(
            "records/s",
            [
                Line("sent", [(at_s, rate_at(LOAD, at_s)) for at_s in times], is_step=True),
                Line("answered", [(one.at_s, one.answered_per_s) for one in ran.seconds]),
            ],
        ),
        Panel("lag, records", [Line("lag", [(one.at_s, one.lag) for one in samples])]),
        Panel(
            "latency to the visible verdict, seconds",
            [
                Line(name, [(one.at_s, one.latency_ms[name] / 1_000) for one in ran.seconds if one.latency_ms])
                for name in ("p50", "p99")
            ],
        ),
        Panel(
            "workers",
            [
                Line("wanted", steps(ran.changes, ran.samples[-1].at_s), is_step=True),
                Line("running, with those that drain", [(one.at_s, one.workers) for one in samples], is_step=True),
            ],
            limits=(0, MAXIMUM + 1.2),
        ),
    ]


def steps(changes: Sequence[Change], end_s: float) -> list[tuple[float, float]]:
    """Return the wanted number of workers over time."""
    return [(0, 1), *((change.at_s, change.after) for change in changes), (end_s, changes[-1].after)]


def main() -> None:
    """Print each change of the number of workers, and one JSON object; exit code 1 if a promise is broken."""
    by_metrics = ByMetrics(
        target_s=TARGET_S, scale_up_at=0.5, records_per_worker=0.8 * PER_WORKER_S, rate_s=120 / SPEED
    )
    triggers: Sequence[tuple[Trigger, Rules]] = ((ByLag(LAG_THRESHOLD), UP_BY_LAG), (by_metrics, UP))
    runs: list[Ran] = []
    with running() as stack:
        for trigger, up in triggers:
            print(trigger.name, flush=True)
            runs.append(scaled(stack, trigger, up))
            print(json.dumps(runs[-1].result), flush=True)
    if "--image" in sys.argv:
        IMAGE.write_text(timeline([panels(ran) for ran in runs], [ran.name for ran in runs]), encoding="utf-8")
    names = ("lost", "doubled", "flaps", "lag_at_end", "disorder")
    result: dict[str, Any] = {name: sum(ran.result[name] for ran in runs) for name in names}
    result["workers"] = max(ran.result["workers"] for ran in runs)
    result["drained"] = all(ran.result["drained"] for ran in runs)
    print(json.dumps(result))
    sys.exit(0 if result["drained"] and not any(result[name] for name in names) and result["workers"] > 1 else 1)


if __name__ == "__main__":
    main()
