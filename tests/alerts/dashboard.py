"""`make test-dashboard`: every query of the dashboard, in a real Prometheus that scrapes all kinds of workers.

It draws the panels into build/dashboard.png. Exit code 1 if a query gives no number, if Prometheus cannot evaluate an
alert, or if an alert fires.
"""

from __future__ import annotations

import atexit
import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from infra.devstack.stack import running
from infra.observability import dashboard
from infra.observability.alerts import ALERTS, ROOT
from infra.observability.dashboard import HEIGHT, WIDTH, metrics_in
from tests.command import GUARDLINE
from tests.reviewing import Desk
from tests.servers.receiver import Receiver
from tests.site import Process, Site, eventually

PICTURE = ROOT / "build" / "dashboard.png"
LOAD = ("load", "--rate", "150", "--ramp", "5", "--duration", "25", "--duplicates", "0.1", "--invalid", "0.005")
WITH_A_WRONG_FIELD = b'{"event_id": 1, "tenant_id": "b", "surface": "chat", "language": 7, "text": "x"}'
RATE_INTERVAL = "10s"

Series = tuple[str, list[float], list[float]]
"""A legend, times and values."""


class Prometheus:
    """A server that scrapes the workers every second and evaluates the alerts."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
            return json.load(answer)["data"]

    @property
    def is_up(self) -> bool:
        try:
            return bool(self.get("query", query="up"))
        except OSError:
            return False

    def series(self, expression: str, legend: str, began: float, ended: float) -> list[Series]:
        """Run a query of the dashboard over the time of the load."""
        for variable, value in (("$__rate_interval", RATE_INTERVAL), ("$job", ".*"), ("$instance", ".*")):
            expression = expression.replace(variable, value)
        found = self.get("query_range", query=expression, start=f"{began}", end=f"{ended}", step="1")["result"]
        return [
            (
                _filled(legend, one["metric"]),
                [float(at) - began for at, _ in one["values"]],
                [float(value) for _, value in one["values"]],
            )
            for one in found
        ]


def _filled(legend: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend


@contextmanager
def prometheus(jobs: dict[str, list[Process]], folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus for the workers of these jobs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "infra/observability/alerts.yaml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [worker.address for worker in workers]}]}
            for job, workers in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        *("prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address={address}", "--log.level=error"),
    ]
    server = subprocess.Popen(command)
    try:
        made = Prometheus(f"http://{address}")
        eventually(lambda: made.is_up, "Prometheus answers")
        yield made
    finally:
        server.terminate()
        server.wait(20)


def main() -> int:
    """Run the load, then every query."""
    if shutil.which("prometheus") is None:
        print("install prometheus (Debian: apt-get install prometheus)", file=sys.stderr)
        return 2
    with running() as stack, tempfile.TemporaryDirectory() as folder:
        site = Site(stack.kafka, stack.redis)
        try:
            failures = _measure(site, Path(folder))
        finally:
            site.close()
    print(f"{PICTURE}: {len(failures)} failures")
    print("\n".join(failures))
    return 1 if failures else 0


def _measure(site: Site, folder: Path) -> list[str]:
    desk, endpoints = Desk(site), _endpoints(folder)
    site.command("topics", "create", GUARDLINE_ACTIONS__ENDPOINTS=endpoints)
    policy = folder / "policy.yaml"
    policy.write_text("controversial: review\nunsafe: block\n")
    site.command("policy", "set", "acme", policy)
    workers = [site.worker(GUARDLINE_WORKER__ID=name) for name in ("a", "b")]
    for worker in workers:
        eventually(lambda worker=worker: worker.has_partitions, "it has partitions")  # type: ignore[misc]
    jobs = {
        "guardline": workers,
        "guardline-aggregates": [site.worker(GUARDLINE, "worker", "aggregates")],
        "guardline-review": [desk.start()],
        "guardline-actions": [site.worker(GUARDLINE, "worker", "actions", GUARDLINE_ACTIONS__ENDPOINTS=endpoints)],
    }
    for worker in (one for others in jobs.values() for one in others):
        eventually(lambda worker=worker: '"worker started"' in worker.text, "it has started", 60)  # type: ignore[misc]
    with prometheus(jobs, folder) as server:
        began = time.time()
        for topic in (0, 1):
            site.produce([(b"k", None), (b"k", WITH_A_WRONG_FIELD)], topic=topic)
        print(site.command(*LOAD).stdout.splitlines()[-1])
        time.sleep(2)  # The last scrape.
        return _check(server, began, time.time())


def _endpoints(folder: Path) -> str:
    """Give the setting for one receiver, which accepts every fifth call only when it is repeated."""
    (folder / "secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    (folder / "receiver").mkdir()
    receiver = Receiver(folder / "receiver")
    atexit.register(receiver.close)
    one = {
        "name": "receiver",
        "url": receiver.url("flaky"),
        "secret_files": [str(folder / "secret")],
        "kinds": ["verdict", "signal"],
        "decisions": ["allow", "review", "block"],
        "allow_http": True,
        "allow_networks": ["127.0.0.0/8"],
    }
    return json.dumps([one])


def _check(server: Prometheus, began: float, ended: float) -> list[str]:
    failures: list[str] = []
    panels = [panel for panel in json.loads(dashboard.rendered())["panels"] if panel["type"] != "row"]
    found: list[tuple[dict[str, Any], list[Series]]] = []
    for panel in panels:
        lines: list[Series] = []
        for target in panel["targets"]:
            series = server.series(target["expr"], target["legendFormat"], began, ended)
            if not any(math.isfinite(value) for _, _, values in series for value in values):
                failures.append(f"{panel['title']}: no data: {target['expr']}")
            lines += series
        found.append((panel, lines))
    for rule in (rule for group in server.get("rules")["groups"] for rule in group["rules"]):
        if rule["health"] != "ok":
            failures.append(f"{rule['name']}: {rule.get('lastError')}")
        if rule["state"] == "firing":
            failures.append(f"{rule['name']} fires")
    alerted = set().union(*(metrics_in(alert.expression) for alert in ALERTS))
    failures += [f"no series: {name}" for name in sorted(alerted) if not server.series(name, "", began, ended)]
    _draw(found, ended - began)
    return failures


def _draw(found: list[tuple[dict[str, Any], list[Series]]], seconds: float) -> None:
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel, _ in found)
    figure = Figure(figsize=(WIDTH * 0.9, bottom * 0.38), dpi=70)
    for panel, lines in found:
        place = panel["gridPos"]
        box = (
            (place["x"] + 0.6) / WIDTH,
            1 - (place["y"] + place["h"] - 0.9) / bottom,
            (place["w"] - 1) / WIDTH,
            (place["h"] - 2) / bottom,
        )
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=9)
        if panel["type"] == "stat" or place["h"] < HEIGHT:
            axes.axis("off")
            axes.text(0.5, 0.4, f"{lines[0][2][-1]:.4g}" if lines else "no data", ha="center", va="center", fontsize=20)
        else:
            _plot(axes, lines, seconds)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE)


def _plot(axes: Axes, lines: list[Series], seconds: float) -> None:
    for legend, times, values in lines:
        axes.plot(times, values, label=legend, linewidth=1)
    axes.set_xlim(0, seconds)
    axes.set_ylim(bottom=min([0, *(value for _, _, values in lines for value in values if math.isfinite(value))]))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=6, loc="upper right")


if __name__ == "__main__":
    sys.exit(main())
