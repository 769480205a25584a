"""`make soak`: two workers under `guardline load`, with everything that operators do to them, in about two minutes.

A change of a policy, a rolling restart, a scale-up, a scale-down and a restart of the broker. At the end it counts the
topics again, and writes one page of plots (`build/soak.html`, without anything from other hosts) and one JSON object.
A worker whose transaction outlives the restart of the only broker ends with exit code 1 (docs/operations.md), and is
started again as Kubernetes would do it: `failed` counts these.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infra.devstack.stack import Stack, running
from tests.benchmarks.fleet import Fleet, throw_away
from tests.benchmarks.plots import Line, Panel, timeline
from tests.benchmarks.watching import Sample, Watch
from tests.command import GUARDLINE, inheriting
from tests.site import Site, eventually

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "build" / "soak.html"
IMAGE = ROOT / "docs" / "images" / "rolling-restart.svg"

RATE = 60
CALM_S = 10.0
"""Between two steps, and before the first and after the last one."""

POLICY_WITHIN_S = 3.0
"""An event that was sent so long after a policy was set must be decided by it. Workers apply a change within 1 s."""

TENANTS = ("acme=3", "campus=1")
POLICY = "controversial: review\nunsafe: review\n"

SETTINGS = {"GUARDLINE_KAFKA__SESSION_TIMEOUT_S": ""}


@dataclass(frozen=True)
class Step:
    """Something that was done to the group, in seconds since the start of the load."""

    name: str
    began_s: float
    ended_s: float


class LoadProcess(threading.Thread):
    """`guardline load` as a process, and what it prints each second."""

    def __init__(self, site: Site) -> None:
        super().__init__(name="load", daemon=True)
        tenants = [part for tenant in TENANTS for part in ("--tenant", tenant)]
        mix = ("--duplicates", "0.05", "--invalid", "0.01", "--wait", "60", "--json")
        with inheriting():
            self._popen = subprocess.Popen(
                [GUARDLINE, "load", "--rate", str(RATE), "--ramp", "3", *tenants, *mix],
                env={**os.environ, **site.environment},
                stdout=subprocess.PIPE,
                text=True,
            )
        self.lines: list[dict[str, Any]] = []
        self.began: float | None = None

    def run(self) -> None:
        """Read its lines."""
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.lines.append(json.loads(line))
            if self.began is None:
                self.began = time.monotonic() - self.lines[0]["at_s"]

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def end(self) -> Mapping[str, Any]:
        """End it as Ctrl-C does, and return its summary."""
        self._popen.send_signal(signal.SIGINT)
        code = self._popen.wait(120)
        self.join()
        assert code == 128 + signal.SIGINT, code
        return self.lines[-1]


class Soak:
    """The steps, one after the other, each with its time."""

    def __init__(self, stack: Stack, site: Site) -> None:
        self._stack = stack
        self._site = site
        self.fleet = Fleet(site, **SETTINGS)
        self.fleet.scale_to(2)
        self.fleet.wait_until(self.fleet.are_ready, "two workers are ready")
        self._load = LoadProcess(site)
        self._load.start()
        self.fleet.wait_until(lambda: self._load.began is not None, "the load runs")
        self.began = self._load.began or 0.0
        self._watch = Watch(site, self.fleet.running, self.began)
        self._watch.start()
        self.steps: list[Step] = []
        self.policy_set_ms = 0
        self.restarts: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do one thing while the load runs, after a calm time."""
        calm = time.monotonic() + CALM_S
        self.fleet.wait_until(lambda: time.monotonic() >= calm, "a calm time")
        assert self._load.is_running, f"the load ended before {name}"
        began = time.monotonic()
        yield
        self.steps.append(Step(name, round(began - self.began, 1), round(time.monotonic() - self.began, 1)))
        print(f"{self.steps[-1].began_s:6.1f} s  {name}: {time.monotonic() - began:.1f} s", flush=True)

    def run(self) -> Mapping[str, Any]:
        """Do all steps; return the summary of the load."""
        with self.step("policy change"):
            file = Path(self._site.folder.name) / "policy.yaml"
            file.write_text(POLICY, encoding="utf-8")
            self._site.command("policy", "set", "acme", file)
            self.policy_set_ms = int(time.time() * 1_000)
        with self.step("rolling restart"):
            for name in ("w0", "w1"):
                began = time.monotonic()
                self.fleet.restart(name)
                self.restarts.append(Step(name, began - self.began, time.monotonic() - self.began))
        with self.step("scale up to 3"):
            self.fleet.scale_to(3)
            self.fleet.wait_until(self.fleet.are_ready, "the third worker is ready")
        with self.step("scale down to 2"):
            self.fleet.scale_to(2)
            self.fleet.wait_until(lambda: len(self.fleet.running()) == 2, "the third worker has drained")
        with self.step("broker restart"):
            self._stack.restart_kafka()
            done = self._watch.samples[-1].done
            self.fleet.wait_until(
                lambda: self._watch.samples[-1].done > done and self.fleet.are_ready(), "the workers commit again"
            )
        calm = time.monotonic() + CALM_S
        self.fleet.wait_until(lambda: time.monotonic() >= calm, "a calm time")
        summary = self._load.end()
        eventually(lambda: self._watch.samples[-1].lag == 0, "the lag is 0")
        self.fleet.end()
        self._watch.stop()
        return summary

    @property
    def samples(self) -> Sequence[Sample]:
        """What the group did."""
        return self._watch.samples

    @property
    def seconds(self) -> Sequence[Mapping[str, Any]]:
        """What the load printed each second."""
        return self._load.lines[:-1]


def counted(site: Site, samples: Sequence[Sample], policy_set_ms: int) -> dict[str, int]:
    """Count the topics again: all input positions against all visible outcomes."""
    outcome = site.outcome()
    sent = {(*partition, offset) for partition, end in samples[-1].ends.items() for offset in range(end)}
    late = 0
    for documents in outcome.by_position.values():
        for document in documents:
            is_acme = document.get("tenant_id") == "acme"
            if is_acme and document["source"]["timestamp"] > policy_set_ms + 1_000 * POLICY_WITHIN_S:
                late += document["policy"]["id"] != "acme"
    reviewed, wanted = outcome.reviewed, Counter(outcome.to_review)
    return {
        "events": len(sent),
        "lost": len(sent - outcome.by_position.keys()) + (wanted - reviewed).total(),
        "doubled": sum(len(found) - 1 for found in outcome.by_position.values()) + (reviewed - wanted).total(),
        "old_policy": late,
    }


def panels_of(soak: Soak) -> list[Panel]:
    """Return the plots of the page."""
    seconds, samples = soak.seconds, soak.samples
    spans = [(step.began_s, step.ended_s) for step in soak.steps]
    marks = [(step.began_s, step.name) for step in soak.steps]

    def points(name: str) -> list[tuple[float, float]]:
        return [(one["at_s"], one[name]) for one in seconds]

    names = sorted({name for sample in samples for name in sample.memory_mb})
    return [
        Panel(
            "records/s",
            [Line("sent", points("sent_per_s")), Line("answered", points("answered_per_s"))],
            spans,
            marks,
        ),
        Panel("latency from sent to visible, seconds", latencies(seconds), spans),
        Panel("lag, records", [Line("lag", [(one.at_s, one.lag) for one in samples])], spans),
        Panel(
            "workers",
            [Line("running, with those that drain", [(one.at_s, one.workers) for one in samples], is_step=True)],
            spans,
            limits=(0, 4.4),
        ),
        Panel(
            "resident memory, MB",
            [
                Line(name, [(one.at_s, one.memory_mb[name]) for one in samples if name in one.memory_mb])
                for name in names
            ],
            spans,
        ),
        Panel(
            "invariants: outcomes doubled, out of order",
            [Line(name, points(name)) for name in ("doubled", "disorder")],
            spans,
            limits=(-0.2, max(2, *(one[name] for one in seconds for name in ("doubled", "disorder")))),
        ),
    ]


def latencies(seconds: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Return a line for each percentile."""
    return [
        Line(name, [(one["at_s"], one["latency_ms"][name] / 1_000) for one in seconds if one["latency_ms"]])
        for name in ("p50", "p99")
    ]


def restart_panels(soak: Soak) -> list[Panel]:
    """Return the plots of the rolling restart alone, for the documentation."""
    step = next(step for step in soak.steps if step.name == "rolling restart")
    begin, end = step.began_s - CALM_S / 2, step.ended_s + CALM_S / 2
    samples = [one for one in soak.samples if begin <= one.at_s <= end]
    seconds = [one for one in soak.seconds if begin <= one["at_s"] <= end]
    spans = [(one.began_s, one.ended_s) for one in soak.restarts]
    marks = [(one.began_s, f"SIGTERM to {one.name}, until it is ready again") for one in soak.restarts]
    return [
        Panel("lag, records", [Line("lag", [(one.at_s, one.lag) for one in samples])], spans, marks),
        Panel("latency from sent to visible, seconds", latencies(seconds), spans),
    ]


def write_page(soak: Soak, result: Mapping[str, Any]) -> None:
    """Write the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("soak.html.jinja")
    PAGE.parent.mkdir(exist_ok=True)
    plot = timeline([panels_of(soak)])
    page = template.render(result=result, steps=soak.steps, plot=plot, ended=soak.fleet.ended, rate=RATE)
    PAGE.write_text(page, encoding="utf-8")


def main() -> None:
    """Print each step, and one JSON object; exit code 1 if a promise is broken."""
    with running() as stack, throw_away(Site(stack.kafka, stack.redis)) as site:
        soak = Soak(stack, site)
        summary = soak.run()
        counts = counted(site, soak.samples, soak.policy_set_ms)
    memory = [max(one.memory_mb.values()) for one in soak.samples if one.memory_mb]
    result = {
        **counts,
        "lost": counts["lost"] + summary["missing"],
        "doubled": max(counts["doubled"], summary["doubled"]),
        "disorder": summary["disorder"],
        "longest_silence_s": summary["longest_silence_s"],
        "drained": soak.fleet.drained,
        "failed": len(soak.fleet.failed),
        "longest_drain_s": max(one["drain_s"] for one in soak.fleet.ended),
        "longest_restart_s": round(max(one.ended_s - one.began_s for one in soak.restarts), 1),
        **{f"{name}_ms": value for name, value in summary["latency_ms"].items()},
        "peak_memory_mb": round(max(memory)),
        "seconds": summary["seconds"],
    }
    write_page(soak, result)
    if "--image" in sys.argv:
        IMAGE.write_text(timeline([restart_panels(soak)]), encoding="utf-8")
    print(f"the plots are in {PAGE.relative_to(ROOT)}")
    print(json.dumps(result))
    broken = [name for name in ("lost", "doubled", "disorder", "old_policy") if result[name]]
    sys.exit(1 if broken or not result["drained"] else 0)


if __name__ == "__main__":
    main()
